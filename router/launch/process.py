"""Replicas as processes of this machine, forked by one fork-server an environment."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyio import CancelScope

from router.core.events import Event, Kept, Unkept
from router.launch.children import Children, Forked
from router.launch.forker import Forker, pair
from router.launch.forkserver import ForkServer
from router.launch.logs import Logs
from router.launch.machine import memory
from router.launch.orphans import forget, remember
from router.launch.rundir import RunFolder
from router.launch.template import Template
from router.shell.plan import Plan

log = logging.getLogger("torpor.launcher")


class ProcessLauncher(Children):
    """Implements the engine's `Launching`: one fork-server an environment."""

    def __init__(
        self, folder: Path, logs: Logs, clock: Callable[[], float] = time.monotonic, run: RunFolder | None = None
    ) -> None:
        super().__init__(folder, logs, run or RunFolder(folder / "run"))
        self._clock = clock
        self._servers: dict[Path, ForkServer] = {}
        self._spawning: dict[Path, asyncio.Lock] = {}
        self._wanted: Counter[Path] = Counter()  # who waits for a fork-server
        self._used: dict[Path, float] = {}  # when one was last wanted, or had a replica or template
        self._templates: dict[str, Template] = {}

    def open(self) -> list[int]:
        """Ends what an earlier router left running; the pids. Blocks for as long as that takes."""
        found = self._run.open()
        (self._folder / "logs").mkdir(exist_ok=True)
        return found

    async def close(self) -> None:
        """Ends templates and fork-servers, and waits for each; the replicas are stopped before."""
        for template in self._templates.values():
            template.end()
            template.kill()
        for server in list(self._servers.values()):
            await server.close()
            forget(self._run.path, f"forkserver-{server.pid}")
        self._servers.clear()
        for template in list(self._templates.values()):  # nobody is left who would tell how it ends
            when_gone(template.pid, functools.partial(self._template_over, template))
            await template.over.wait()
        self._run.close()

    # The engine's Launcher

    async def prepare(self, plan: Plan) -> None:
        await self._prepared(plan)

    async def _parent(self, replica: str, plan: Plan, template: str | None) -> Forker:
        server = self._templates.get(template) if template else None
        if server is not None and server.alive:  # else it died since it was chosen
            return server
        return await self._prepared(plan)

    def has(self, name: str) -> bool:
        return name in self._templates or super().has(name)

    # Templates

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        server = await self._prepared(plan)
        if template in self._dropped:
            self._dropped.discard(template)
            return tell(Unkept(template))
        spec, path = self._spec(template, plan, server) | {"template": True}, self._log(template, plan, server)
        ours, theirs = pair()
        made = self._templates[template] = Template(template, server, ours, path, self._told, self._server_gone)
        try:
            try:
                with theirs, path.open("ab") as log:
                    server.fork(spec, (theirs.fileno(), log.fileno()))
            except BaseException:
                self._template_over(made)  # there is no process
                raise
            await made.load()
            if made.reason is None:
                tell(Kept(template, memory(made.pid) or 0))
            else:
                made.end()
            await made.over.wait()
        finally:
            made.end()
            made.kill()  # a keeping that was given up; whoever forked it tells when it has ended, or `close` sees it
            tell(Unkept(template, made.reason))

    async def drop(self, template: str) -> None:
        made = self._templates.get(template)
        if made is None:
            self._dropped.add(template)  # before it was made
            return
        for forked in [f for f in self._replicas.values() if f.server is made]:
            await forked.over.wait()  # it is their parent, who alone hears how they end
        made.end()
        await made.over.wait()

    def pids(self) -> dict[str, tuple[int, ...]]:
        """The processes of replicas and templates, by id."""
        all_of: list[Forked | Template] = [*self._replicas.values(), *self._templates.values()]
        return {each.id: (each.pid,) for each in all_of if each.pid is not None}

    def own_pids(self) -> list[int]:
        """The fork-servers' processes; a child that waits for the next start is of its parent's session."""
        return [server.pid for server in self._servers.values()]

    # One fork-server an environment

    async def rest(self, unused: float) -> None:
        """Ends the fork-servers that had nothing to do for so many seconds; the next start of one makes it again."""
        now = self._clock()
        for python, server in list(self._servers.items()):
            if self._wanted[python] or self._used_by(server):
                self._used[python] = now
            elif (idle := now - self._used[python]) >= unused:
                del self._servers[python]
                with CancelScope(shield=True):  # a router that ends meanwhile waits for it too
                    await server.close()
                forget(self._run.path, f"forkserver-{server.pid}")
                log.info("ended the fork-server of %s, unused for %.0f s", python, idle)

    def _used_by(self, server: ForkServer) -> bool:
        """Whether anything that it forked runs. What a template forked ends before it does."""
        return any(f.server is server for f in self._replicas.values()) or any(
            t.parent is server for t in self._templates.values()
        )

    async def _prepared(self, plan: Plan) -> ForkServer:
        self._wanted[plan.python] += 1
        try:
            server = await self._server(plan.python)
            await server.preload(plan.modules)
            return server
        finally:
            self._wanted[plan.python] -= 1
            self._used[plan.python] = self._clock()

    async def _server(self, python: Path) -> ForkServer:
        async with self._spawning.setdefault(python, asyncio.Lock()):
            server = self._servers.get(python)
            if server is None or not server.alive:
                server = ForkServer(python, self._folder / "logs" / "forkserver.log", self._told, self._server_gone)
                try:  # written down before its imports: a router killed meanwhile leaves it to the next one
                    await server.spawn(lambda pid: remember(self._run.path, f"forkserver-{pid}", pid))
                except BaseException:
                    if server.spawned:
                        forget(self._run.path, f"forkserver-{server.pid}")
                    raise
                self._servers[python] = server
            return server

    def _server_gone(self, server: Forker) -> None:
        """What it forked has no parent that reports it any more: it ends too, and is watched by pid."""
        if isinstance(server, ForkServer):
            forget(self._run.path, f"forkserver-{server.pid}")
            self._servers = {python: other for python, other in self._servers.items() if other is not server}
        for forked in [f for f in self._replicas.values() if f.server is server]:
            forked.signal(signal.SIGKILL)
            when_gone(forked.pid, functools.partial(self._exited, forked, -signal.SIGKILL))
        for template in [t for t in self._templates.values() if t.parent is server]:
            template.kill()
            when_gone(template.pid, functools.partial(self._template_over, template))

    def _told(self, packet: dict[str, Any], parent: Forker) -> None:
        name = packet["replica"]
        if (template := self._templates.get(name)) is not None:
            if packet["ev"] == "forked":
                template.pid = int(packet["pid"])
                remember(self._run.path, template.id, template.pid)
                if not template.alive:  # it was given up meanwhile
                    template.kill()
            elif packet["ev"] == "exited":
                self._template_over(template)
        else:
            self._heard(packet, parent)

    def _template_over(self, template: Template) -> None:
        self._templates.pop(template.id, None)
        self._clear(template.id, self._run.path / template.id)
        forget(self._run.path, template.id)
        template.over.set()


def when_gone(pid: int | None, then: Callable[[], None]) -> None:
    """Calls `then` once a process has ended, whoever its parent is; at once where there is none."""
    try:
        watched = -1 if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        watched = -1
    if watched < 0:
        return then()
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(watched)
        os.close(watched)
        then()

    loop.add_reader(watched, ended)
    return None
