"""Replicas as processes of this machine, forked by one fork-server an environment."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio import CancelScope

from router.core.events import Busy, Event, Exited, Failed, Kept, Ready, Unkept
from router.disk import disk
from router.launch.files import write_files
from router.launch.forker import ANSWER_WITHIN, Forker, packets, pair
from router.launch.forkserver import ForkServer
from router.launch.logs import Logs, last_lines
from router.launch.machine import memory, share
from router.launch.orphans import forget, reap, remember, signal_group
from router.launch.template import Template
from router.shell.plan import Plan

log = logging.getLogger("torpor.launcher")

BACKLOG = 1024
SHOWN = 40  # log lines that travel with a failed start: the whole stack of one that a signal killed
FORK_WITHIN = ANSWER_WITHIN + 30.0  # seconds; what the fork-server imports for others comes first


@dataclass(slots=True)
class Forked:
    """One replica's process. `exists` is set once it is forked or never will be, `over` when it is reaped."""

    id: str
    tell: Callable[[Event], None]
    control: socket.socket
    log: Path
    server: Forker
    pid: int | None = None
    said: dict[str, Any] = field(default_factory=dict)
    exists: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def signal(self, number: int) -> None:
        if self.pid is not None:
            signal_group(self.pid, number)


class ProcessLauncher:
    """Implements the engine's `Launcher`. `folder` holds run files, logs and the endpoints' own state."""

    def __init__(self, folder: Path, logs: Logs, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._run = folder / "run"
        self._logs = logs
        self._clock = clock
        self._servers: dict[Path, ForkServer] = {}
        self._spawning: dict[Path, asyncio.Lock] = {}
        self._wanted: Counter[Path] = Counter()  # who waits for a fork-server
        self._used: dict[Path, float] = {}  # when one was last wanted, or had a replica or template
        self._replicas: dict[str, Forked] = {}
        self._templates: dict[str, Template] = {}
        self._dropped: set[str] = set()  # templates that were given up before they were made
        self._starting: dict[str, asyncio.Event] = {}
        self._run_fd = -1

    def open(self) -> list[int]:
        """Ends what an earlier router left running; the pids. Blocks for as long as that takes."""
        self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / "logs").mkdir(exist_ok=True)
        found = reap(self._run)
        # A socket's path is at most 108 bytes long; through the descriptor it is short wherever the folder is.
        self._run_fd = os.open(self._run, os.O_PATH | os.O_DIRECTORY)
        return found

    async def close(self) -> None:
        """Ends templates and fork-servers, and waits for each; the replicas are stopped before."""
        for template in self._templates.values():
            template.end()
            template.kill()
        for server in list(self._servers.values()):
            await server.close()
            forget(self._run, f"forkserver-{server.pid}")
        self._servers.clear()
        for template in list(self._templates.values()):  # nobody is left who would tell how it ends
            when_gone(template.pid, functools.partial(self._template_over, template))
            await template.over.wait()
        if self._run_fd >= 0:
            os.close(self._run_fd)
            self._run_fd = -1

    # The engine's Launcher

    async def prepare(self, plan: Plan) -> None:
        await self._prepared(plan)

    async def start(self, replica: str, plan: Plan, tell: Callable[[Event], None], template: str | None = None) -> None:
        under_way = self._starting[replica] = asyncio.Event()
        try:
            server: Forker | None = self._templates.get(template) if template else None
            if server is None or not server.alive:  # it died since it was chosen
                server = await self._prepared(plan)
            forked = self._fork(server, replica, plan, tell)
            await existing(forked)
        finally:
            under_way.set()
            del self._starting[replica]

    async def stop(self, replica: str, within: float) -> None:
        if (under_way := self._starting.get(replica)) is not None:
            await under_way.wait()
        forked = self._replicas.get(replica)
        if forked is None:
            return
        await existing(forked)
        forked.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(forked.over.wait(), within)
        except TimeoutError:
            forked.signal(signal.SIGKILL)
            await forked.over.wait()

    def address(self, replica: str) -> str:
        return f"/proc/self/fd/{self._run_fd}/{replica}.sock"

    def said(self, replica: str) -> Mapping[str, Any]:
        forked = self._replicas.get(replica)
        return {} if forked is None else {**forked.said, "pid": forked.pid}

    def last_words(self, replica: str) -> tuple[str, ...]:
        forked = self._replicas.get(replica)
        return () if forked is None else tuple(last_lines(forked.log, SHOWN))

    # Templates

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        server = await self._prepared(plan)
        if template in self._dropped:
            self._dropped.discard(template)
            return tell(Unkept(template))
        spec, path = self._spec(template, plan) | {"template": True}, self._log(template, plan)
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

    def pids(self) -> dict[str, int]:
        """The processes of replicas and templates, by id."""
        all_of: list[Forked | Template] = [*self._replicas.values(), *self._templates.values()]
        return {each.id: each.pid for each in all_of if each.pid is not None}

    def own_pids(self) -> list[int]:
        """The fork-servers' processes; a child that waits for the next start is of its parent's session."""
        return [server.pid for server in self._servers.values()]

    # One fork-server an environment

    async def rest(self, unused: float) -> None:
        """Ends the fork-servers that had nothing to do for so many seconds; the next start of one makes it again."""
        now = self._clock()
        for python, server in list(self._servers.items()):
            if self._wanted[python] or self._parent(server):
                self._used[python] = now
            elif (idle := now - self._used[python]) >= unused:
                del self._servers[python]
                with CancelScope(shield=True):  # a router that ends meanwhile waits for it too
                    await server.close()
                forget(self._run, f"forkserver-{server.pid}")
                log.info("ended the fork-server of %s, unused for %.0f s", python, idle)

    def _parent(self, server: ForkServer) -> bool:
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
                    await server.spawn(lambda pid: remember(self._run, f"forkserver-{pid}", pid))
                except BaseException:
                    if server.spawned:
                        forget(self._run, f"forkserver-{server.pid}")
                    raise
                self._servers[python] = server
            return server

    def _server_gone(self, server: Forker) -> None:
        """What it forked has no parent that reports it any more: it ends too, and is watched by pid."""
        if isinstance(server, ForkServer):
            forget(self._run, f"forkserver-{server.pid}")
            self._servers = {python: other for python, other in self._servers.items() if other is not server}
        for forked in [f for f in self._replicas.values() if f.server is server]:
            forked.signal(signal.SIGKILL)
            when_gone(forked.pid, functools.partial(self._exited, forked, -signal.SIGKILL))
        for template in [t for t in self._templates.values() if t.parent is server]:
            template.kill()
            when_gone(template.pid, functools.partial(self._template_over, template))

    def _told(self, packet: dict[str, Any]) -> None:
        name = packet["replica"]
        if (template := self._templates.get(name)) is not None:
            if packet["ev"] == "forked":
                template.pid = int(packet["pid"])
                remember(self._run, template.id, template.pid)
                if not template.alive:  # it was given up meanwhile
                    template.kill()
            elif packet["ev"] == "exited":
                self._template_over(template)
        elif (forked := self._replicas.get(name)) is not None:
            if packet["ev"] == "forked":
                forked.pid = int(packet["pid"])
                remember(self._run, forked.id, forked.pid)
                forked.exists.set()
            elif packet["ev"] == "exited":
                self._exited(forked, int(packet["status"]))

    def _template_over(self, template: Template) -> None:
        self._templates.pop(template.id, None)
        self._clear(template.id)
        forget(self._run, template.id)
        template.over.set()

    # One replica

    def _spec(self, name: str, plan: Plan) -> dict[str, Any]:
        """What a child is told; makes the folders that it names."""
        state, run = self._folder / "endpoints" / plan.endpoint, self._run / name
        with disk(self._folder):
            state.mkdir(parents=True, exist_ok=True)
            run.mkdir(mode=0o700)
            try:
                told = write_files(run, plan.files)
            except BaseException:
                self._clear(name)
                raise
        return {
            "replica": name,
            "endpoint": plan.endpoint,
            "revision": plan.revision,
            "folder": str(plan.folder),
            "bento": str(plan.bento) if plan.bento else None,
            "target": plan.target,
            "env": {"TORPOR_THREADS": str(share(plan.threads, plan.replicas)), **plan.env, **told},
            "state_folder": str(state),
            "run_folder": str(run),
            "concurrency": plan.concurrency,
            "sessions": plan.sessions,
            "learn": plan.learn,
        }

    def _log(self, name: str, plan: Plan) -> Path:
        """A child's log, made; where it cannot be, the child's folders go."""
        try:
            with disk(self._folder):
                return self._logs.open(plan.endpoint, name)
        except BaseException:
            self._clear(name)
            raise

    def _fork(self, server: Forker, replica: str, plan: Plan, tell: Callable[[Event], None]) -> Forked:
        spec, path = self._spec(replica, plan), self._log(replica, plan)
        ours, theirs = pair()
        try:
            with disk(self._folder), theirs, socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self.address(replica))
                listener.listen(BACKLOG)
                with path.open("ab") as log:
                    server.fork(spec, (listener.fileno(), theirs.fileno(), log.fileno()))
        except BaseException:
            ours.close()
            self._clear(replica)
            raise
        forked = self._replicas[replica] = Forked(replica, tell, ours, path, server)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear, forked)
        return forked

    def _clear(self, replica: str) -> None:
        (self._run / f"{replica}.sock").unlink(missing_ok=True)
        shutil.rmtree(self._run / replica, ignore_errors=True)

    def _hear(self, forked: Forked) -> None:
        arrived, ended = packets(forked.control)
        for packet in arrived:
            if packet["ev"] == "ready":
                forked.said = packet
                forked.tell(Ready(forked.id, packet.get("in_flight_limit"), packet.get("phases", {})))
            elif packet["ev"] == "failed":
                lines = tuple(packet.get("log", ()))[-SHOWN:] or tuple(last_lines(forked.log, SHOWN))
                forked.tell(Failed(forked.id, str(packet["error"]), lines))
            elif packet["ev"] == "busy":
                forked.tell(Busy(forked.id, int(packet["tasks"])))
        if ended:
            asyncio.get_running_loop().remove_reader(forked.control.fileno())

    def _exited(self, forked: Forked, status: int) -> None:
        """Its last words first, then the whole group, then the news."""
        del self._replicas[forked.id]
        self._hear(forked)
        asyncio.get_running_loop().remove_reader(forked.control.fileno())
        forked.control.close()
        if forked.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(forked.pid, signal.SIGKILL)  # the children that it leaves
        forget(self._run, forked.id)
        self._clear(forked.id)
        forked.exists.set()
        forked.over.set()
        forked.tell(Exited(forked.id, status, tuple(last_lines(forked.log, SHOWN))))


async def existing(forked: Forked) -> None:
    """Returns when the replica has a pid, or when it is over. A fork-server that hangs is ended, and all of it."""
    try:
        await asyncio.wait_for(forked.exists.wait(), FORK_WITHIN)
    except TimeoutError:
        forked.server.kill()
        await forked.exists.wait()


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
