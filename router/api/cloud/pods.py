"""The WebSockets of BentoCloud's API: a deployment's replicas as pods, and their log lines as they come."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from router.api.cloud.shapes import NAMESPACE
from router.core.line import Replica
from router.core.split import endpoint_of
from router.launch.logs import Logs
from router.shell.deployments import Deployments, Progress, Status
from router.shell.engine import Engine
from torpor.wire import State

BUILDER = "build-"  # and the deployment: the pod that makes its environment
LINES_MAX = 10_000
EVERY = 0.2  # seconds between two looks
ASK_WITHIN = 30.0  # seconds that a caller may take to say what it wants


@dataclass(frozen=True, slots=True)
class PodRoutes:
    """Over what runs now."""

    deployments: Deployments
    engine: Engine
    logs: Logs

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute("/ws/v1/clusters/{cluster}/pods", self.builders),
            WebSocketRoute("/ws/v2/deployments/{name}/pods", self.replicas),
            WebSocketRoute("/ws/v1/clusters/{cluster}/tail", self.tail),
        ]

    async def builders(self, socket: WebSocket) -> None:
        """Those who make the environment of the bento that `selector` names."""
        wanted = dict(part.partition("=")[::2] for part in socket.query_params.get("selector", "").split(","))
        tag = f"{wanted.get('yatai.ai/bento-repository')}:{wanted.get('yatai.ai/bento')}"
        found = [
            builder(name, progress)
            for name, progress in self.deployments.under_way.items()
            if tag in {part.bento for part in progress.request.parts()}
        ]
        await told_once(socket, found)

    async def replicas(self, socket: WebSocket) -> None:
        name = socket.path_params["name"]
        running = [r for r in self.engine.schedule.replicas.values() if endpoint_of(r.endpoint) == name]
        await told_once(socket, [pod(r) for r in running if r.state not in (State.STOPPED, State.PAUSED)])

    async def tail(self, socket: WebSocket) -> None:
        """One pod's lines: the last ones, and with `follow` those that come, until it is gone."""
        await socket.accept()
        try:
            asked = await asyncio.wait_for(socket.receive_json(), ASK_WITHIN)
            payload = asked.get("payload") if isinstance(asked, dict) else None
            count, follow = read_wish(payload if isinstance(payload, dict) else {})
            lines = self._lines(socket.query_params.get("pod_name", ""), count, follow)
            await told_until_left(socket, lines)
        except (TimeoutError, ValueError, KeyError):
            await socket.send_json({"type": "error", "message": "the request is not JSON, or came late; ask again"})
        except WebSocketDisconnect:
            return
        await socket.close()

    def _lines(self, name: str, count: int, follow: bool) -> AsyncIterator[list[str]]:
        if name.startswith(BUILDER):
            return self._of_builder(self.deployments.under_way.get(name.removeprefix(BUILDER)), follow)
        return self._of_replica(name, count, follow)

    async def _of_builder(self, progress: Progress | None, follow: bool) -> AsyncIterator[list[str]]:
        seen = 0
        while progress is not None:
            lines = list(progress.lines)
            if lines[seen:]:
                yield lines[seen:]
            seen = len(lines)
            if not follow or progress.status is not Status.BUILDING:
                return
            await asyncio.sleep(EVERY)

    async def _of_replica(self, name: str, count: int, follow: bool) -> AsyncIterator[list[str]]:
        replica = self.engine.schedule.replicas.get(name)
        if replica is None:
            return
        endpoint = replica.endpoint
        seen = await asyncio.to_thread(self.logs.ends, endpoint)
        yield mine(name, await asyncio.to_thread(self.logs.tail, endpoint, count))
        while follow and name in self.engine.schedule.replicas:
            await asyncio.sleep(EVERY)
            more: Callable[[], list[str]] = lambda: list(self.logs.follow(endpoint, seen))  # noqa: E731
            if lines := mine(name, await asyncio.to_thread(more)):
                yield lines


def mine(replica: str, lines: Iterable[str]) -> list[str]:
    """A log's lines begin with the replica's id."""
    return [line.partition(" ")[2] for line in lines if line.startswith(replica + " ")]


def read_wish(payload: dict[str, Any]) -> tuple[int, bool]:
    count = payload.get("tail_lines")
    return min(LINES_MAX, count) if isinstance(count, int) and count >= 0 else 50, bool(payload.get("follow"))


async def told_once(socket: WebSocket, pods: list[dict[str, Any]]) -> None:
    await socket.accept()
    try:
        await socket.send_json({"type": "success", "message": "", "payload": pods})
        await socket.close()
    except WebSocketDisconnect:
        return


async def told_until_left(socket: WebSocket, pieces: AsyncIterator[list[str]]) -> None:
    """Sends pieces until they end; the caller's heartbeats are read, and its leaving is noticed."""

    async def listen() -> None:
        while True:
            await socket.receive_text()

    async def tell() -> None:
        async for lines in pieces:
            items = [base64.b64encode(f"{line}\n".encode()).decode() for line in lines]
            await socket.send_json({"type": "append", "message": "", "payload": {"items": items, "type": "append"}})
        await socket.send_json({"type": "success", "message": "EOF", "payload": None})

    tasks = {asyncio.ensure_future(listen()), asyncio.ensure_future(tell())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def builder(name: str, progress: Progress) -> dict[str, Any]:
    running = progress.status is Status.BUILDING
    return {
        "name": BUILDER + name,
        "namespace": NAMESPACE,
        "labels": {"yatai.ai/is-bento-image-builder": "true"},
        "pod_status": {"status": "Running" if running else "Pending", "reason": ""},
        "status": {"phase": "Running" if running else "Pending", "ready": running},
        "runner_name": "",
    }


def pod(replica: Replica) -> dict[str, Any]:
    ready = replica.state is State.READY
    phase = {State.STARTING: "Pending", State.READY: "Running"}.get(replica.state, "Terminating")
    return {
        "name": replica.id,
        "namespace": NAMESPACE,
        "labels": {"yatai.ai/bento-function-component-type": "api-server"},
        "pod_status": {"status": phase, "reason": replica.why or ""},
        "status": {"phase": phase, "ready": ready},
        "runner_name": "",
    }
