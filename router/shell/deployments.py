"""Deployments, as BentoCloud's command line knows them: accepted at once, made in the background, asked after.

Over `Deploys`, which does the work: here is only what is under way, and what failed last.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

import anyio

from router.core.catalog import Fault, Registered
from router.core.split import endpoint_of
from router.shell.deploys import Deploys
from router.shell.engine import Engine
from router.shell.request import Request
from router.shell.told import said
from torpor.errors import Conflict, InternalError, NotFound, TorporError
from torpor.wire import State

log = logging.getLogger("torpor.deployments")

ANSWER_WITHIN = 20.0  # seconds that a request waits for its deploy: the command line looks only every 10 s afterwards
LINES_KEPT = 2000  # of an installer
PORTS = 2000  # tried from the first on


class Status(StrEnum):
    """BentoCloud's (`DeploymentStatus`), those that can be here."""

    DEPLOYING = "deploying"
    BUILDING = "image-building"
    BUILD_FAILED = "image-build-failed"
    RUNNING = "running"
    ASLEEP = "scaled-to-zero"
    UNHEALTHY = "unhealthy"
    FAILED = "failed"
    TERMINATED = "terminated"


@dataclass(slots=True)
class Progress:
    """A deploy under way. `body`: what was asked for, as it came."""

    request: Request
    body: dict[str, Any]
    status: Status = Status.DEPLOYING
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))  # the installer's
    began_at: float = field(default_factory=time.time)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    given_up: bool = False


class Kept(Protocol):
    """Where faults and events are durable; writes return when they are on the disk."""

    def all(self) -> list[Fault]:
        """Blocks."""
        ...

    async def clear(self) -> None:
        """Forgets first deploys that were neither ended nor failed."""
        ...

    async def begin(self, name: str, uid: str, created_at: float) -> None: ...

    async def fail(self, fault: Fault) -> None: ...

    async def drop(self, name: str) -> None: ...

    def note(self, name: str, kind: str, text: str) -> None: ...


class Deployments:
    """`ports`: where the search for a port of their own begins, on `host`; None: their addresses are names."""

    def __init__(self, deploys: Deploys, engine: Engine, kept: Kept, host: str, ports: int | None) -> None:
        self.catalog = engine.catalog
        self.under_way: dict[str, Progress] = {}
        self.faults: dict[str, Fault] = {}
        self._deploys = deploys
        deploys.settled = self._settled
        self._engine = engine
        self._kept = kept
        self._host = host
        self._ports_from = ports
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[int, socket.socket] = {}  # ports of first deploys under way, until they listen

    async def open(self) -> None:
        """What a router before has left: faults to tell of, and first deploys that it did not end."""
        await self._kept.clear()
        found = await asyncio.to_thread(self._kept.all)
        self.faults = {fault.name: fault for fault in found}

    async def close(self) -> None:
        """Gives up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def names(self) -> list[str]:
        """All, the youngest first."""
        made: dict[str, float] = {name: fault.created_at for name, fault in self.faults.items()}
        made |= {name: progress.began_at for name, progress in self.under_way.items()}
        known = (*self.catalog.endpoints.values(), *self.catalog.terminated.values())
        made |= {entry.name: entry.created_at for entry in known}
        return sorted(made, key=lambda name: (-made[name], name))

    def entry(self, name: str) -> Registered | None:
        """Its live revision, or the one that was live when it was terminated."""
        return self.catalog.endpoints.get(name) or self.catalog.terminated.get(name)

    def check_known(self, name: str) -> None:
        """Raises NotFound."""
        if name not in self.under_way and name not in self.faults and self.entry(name) is None:
            raise unknown(name)

    def fault(self, name: str) -> Fault | None:
        """Why the last deploy failed, where no other revision was made live since."""
        fault, entry = self.faults.get(name), self.entry(name)
        return None if fault is None or (entry is not None and entry.revision != fault.revision) else fault

    def _settled(self, name: str) -> None:
        """A revision was made live, in whatever way: what failed before is over."""
        self.faults.pop(name, None)

    def status(self, name: str) -> Status:
        """Raises NotFound."""
        self.check_known(name)
        progress = self.under_way.get(name)
        if progress is not None:
            return progress.status
        fault = self.fault(name)
        if fault is not None:
            return Status(fault.asked.get("status", Status.FAILED))
        if name in self.catalog.terminated:
            return Status.TERMINATED
        line = self._engine.schedule.lines.get(name)
        states = {replica.state for replica in line.replicas.values()} if line else set()
        if states & {State.READY, State.STARTING}:
            return Status.RUNNING
        return Status.UNHEALTHY if line and line.error else Status.ASLEEP

    async def create(self, request: Request, body: dict[str, Any]) -> None:
        """Begins the first deploy of a name. Raises Conflict for one that is taken, and what is wrong at once."""
        name = request.name
        if name in self.under_way or self.entry(name) is not None:
            raise Conflict(f"a deployment {name!r} is there already\nupdate it: bentoml deployment update {name}")
        progress = await self._begin(request, body)
        try:
            await self._kept.begin(name, progress.request.uid, progress.began_at)
        except BaseException:
            self._end(progress)
            raise
        self.faults.pop(name, None)
        await self._watched(progress)

    async def update(self, request: Request, body: dict[str, Any]) -> None:
        """Begins a new revision. Raises NotFound, Conflict while one is under way, and what is wrong at once."""
        name = request.name
        self.check_known(name)
        if self.entry(name) is None and name not in self.under_way:
            return await self.create(request, body)  # none of its deploys ever succeeded
        await self._watched(await self._begin(request, body))

    async def terminate(self, name: str) -> None:
        """Takes it off the air; what is under way is given up."""
        self.check_known(name)
        await self._give_up(name)
        if name in self.catalog.endpoints:
            await self._deploys.terminate(name)
            self._note(name, "terminated", "was terminated")

    async def delete(self, name: str) -> None:
        """Nothing of it stays."""
        self.check_known(name)
        await self._give_up(name)
        if self.entry(name) is not None:
            await self._deploys.remove(name)
        else:
            await self._kept.drop(name)
        self.faults.pop(name, None)

    async def _begin(self, request: Request, body: dict[str, Any]) -> Progress:
        if request.name in self.under_way:
            raise Conflict(f"deployment {request.name!r} is being deployed\nwait until that has ended")
        entry = self.entry(request.name)
        uid = entry.uid if entry else uuid.uuid4().hex
        progress = self.under_way[request.name] = Progress(replace(request, uid=uid), body)
        try:
            progress.request = self._with_port(progress.request)
            await anyio.to_thread.run_sync(self._deploys.check, progress.request)
        except BaseException:
            self._end(progress)
            raise
        return progress

    async def _watched(self, progress: Progress) -> None:
        """Sees the deploy through in a task of its own; returns when that is over, or has taken a while."""
        task = progress.task = asyncio.get_running_loop().create_task(self._run(progress))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with anyio.move_on_after(ANSWER_WITHIN):
            await progress.over.wait()

    async def _run(self, progress: Progress) -> None:
        name = progress.request.name
        try:
            for note in progress.request.notes:
                self._note(name, "note", note)
            await self._deploys.deploy(progress.request, self._hear(progress))
        except TorporError as error:
            await self._failed(progress, error)
        except asyncio.CancelledError:
            if progress.given_up and self.entry(name) is None:
                with anyio.CancelScope(shield=True):
                    await self._failed(progress, Conflict("it was terminated before it was ready\nupdate it"))
            raise
        except Exception:  # the edge of a task: who asks for the status hears of it
            log.exception("the deploy of %s failed", name)
            await self._failed(progress, InternalError("torpor failed at this deploy\nthe router's log has the reason"))
        else:
            self.faults.pop(name, None)
            self._note(name, "deployed", f"revision {self.catalog.endpoints[name].revision} is live")
        finally:
            self._end(progress)

    def _hear(self, progress: Progress) -> Callable[[dict[str, Any]], None]:
        def tell(event: dict[str, Any]) -> None:
            if event["event"] == "log":
                progress.status = Status.BUILDING
                progress.lines.append(event["line"])
            else:
                progress.status = Status.DEPLOYING
            self._note(progress.request.name, *said(event))

        return tell

    async def _failed(self, progress: Progress, error: TorporError) -> None:
        name, entry = progress.request.name, self.entry(progress.request.name)
        building = progress.status is Status.BUILDING
        status = Status.TERMINATED if progress.given_up else Status.BUILD_FAILED if building else Status.FAILED
        asked = {"status": status, "body": progress.body}
        asked["creator"] = progress.request.creator
        text = "\n".join((error.message, *error.detail.get("log", ())))
        number = entry.revision if entry else 0
        fault = self.faults[name] = Fault(name, progress.request.uid, progress.began_at, number, text, asked)
        goes_on = f"; revision {entry.revision} goes on serving" if entry else ""
        self._note(name, "deploy_failed", text.partition("\n")[0] + goes_on)
        await self._kept.fail(fault)

    def let_go(self, port: int) -> None:
        """Its listener opens now: what has kept it from everybody else is in the way."""
        if (held := self._held.pop(port, None)) is not None:
            held.close()

    def _end(self, progress: Progress) -> None:
        if progress.request.settings.port is not None:
            self.let_go(progress.request.settings.port)
        if self.under_way.get(progress.request.name) is progress:
            del self.under_way[progress.request.name]
        progress.over.set()

    async def _give_up(self, name: str) -> None:
        """Ends a deploy under way; a first one is told as terminated."""
        progress = self.under_way.get(name)
        if progress is None:
            return
        progress.given_up = True
        if progress.task is not None:
            progress.task.cancel()
        await progress.over.wait()

    def _with_port(self, request: Request) -> Request:
        """Its address is a port, the same for all revisions: BentoML's client drops the path of a URL."""
        if request.settings.port is not None:
            return request
        entry = self.entry(request.name)
        port = entry.settings.port if entry is not None else None
        if port is None:
            if self._ports_from is None:
                return request
            port = self._take_port(self._ports_from)
        return replace(request, settings=replace(request.settings, port=port))

    def _take_port(self, first: int) -> int:
        """One that nobody else on this machine gets while the deploy is made ready."""
        taken = self.catalog.ports() | self._held.keys()
        for port in range(first, min(first + PORTS, 65536)):
            if port not in taken and (held := hold(self._host, port)) is not None:
                self._held[port] = held
                return port
        raise Conflict(f"no port from {first} on is free\nset ports_from, or remove deployments")

    def _note(self, name: str, kind: str, text: str) -> None:
        self._kept.note(endpoint_of(name), kind, text)


def unknown(name: str) -> NotFound:
    return NotFound(f"no deployment is called {name!r}\nsee `bentoml deployment list`")


def hold(host: str, port: int) -> socket.socket | None:
    """A socket that keeps a port and takes no connections, None where it cannot be had.

    It may be bound although connections of an earlier listener are just ending; from then on nobody else's may.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((host, port))
    except OSError:
        held.close()
        return None
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return held
