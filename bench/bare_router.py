"""`python -m bench.bare_router ENDPOINT=SOCKET ...`: the proxy and engine over replicas that stand already.

A process of its own under uvloop, as the product runs it. Each call is resolved, leased and settled; only what would
start a replica is left out. It prints its port, and ends by TERM.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvloop
from anyio import create_task_group

from router.build import replica_id
from router.core.catalog import Catalog, Registered
from router.core.effects import Note
from router.core.events import Event, Exited, Ready, Unkept
from router.core.settings import Settings
from router.proxy.limits import Limits
from router.proxy.proxy import Proxy
from router.shell.engine import Engine
from router.shell.plan import Plan
from torpor.errors import InternalError


class Standing:
    """A launcher whose replicas are sockets that somebody else serves: a start is ready at once."""

    def __init__(self, sockets: Mapping[str, str]) -> None:
        self._sockets = sockets
        self._tell: dict[str, Callable[[Event], None]] = {}
        self._addresses: dict[str, str] = {}

    async def prepare(self, plan: Plan) -> None:
        return None

    async def start(self, replica: str, plan: Plan, tell: Callable[[Event], None], template: str | None = None) -> None:
        self._addresses[replica] = self._sockets[plan.endpoint]
        self._tell[replica] = tell
        tell(Ready(replica))

    async def stop(self, replica: str, within: float) -> None:
        self._tell.pop(replica)(Exited(replica, 0))

    async def pause(self, replica: str) -> None:
        raise InternalError(
            f"replica {replica} cannot be frozen: somebody else serves it\nuse another `sleep` than pause"
        )

    async def resume(self, replica: str, tell: Callable[[Event], None]) -> None:
        await self.pause(replica)

    def address(self, replica: str) -> str:
        return self._addresses[replica]

    def said(self, replica: str) -> Mapping[str, Any]:
        return {}

    def last_words(self, replica: str) -> tuple[str, ...]:
        return ()

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        tell(Unkept(template, "a socket of somebody else's"))

    async def drop(self, template: str) -> None:
        return None


def forget(_: Note) -> None:
    """No history is kept."""


async def plan(endpoint: str, revision: int) -> Plan:
    return Plan(endpoint, revision, Path(), None, "none:None", Path(sys.executable))


async def serve(sockets: Mapping[str, str]) -> None:
    catalog = Catalog()
    engine = Engine(catalog, Standing(sockets), replica_id, time.monotonic, forget, plan)
    proxy = Proxy(engine, "", Limits())
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with create_task_group() as tasks:
        await tasks.start(engine.run)
        for name in sockets:
            catalog.put(Registered(name, 1, "", {}, Settings(), 0.0))
            engine.live(name, 1, Settings())
            await engine.wake(name)
        server = await loop.create_server(proxy.protocol_factory(None), "127.0.0.1", 0, backlog=2048)
        gc.collect()
        gc.freeze()  # as the product does
        print(server.sockets[0].getsockname()[1], flush=True)
        await ended.wait()
        server.close()
        await proxy.close(1.0)
        await engine.shut_down()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    uvloop.run(serve(dict(argument.split("=", 1) for argument in sys.argv[1:])))
