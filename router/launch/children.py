"""Replicas and templates as whoever forks them has them: what they are told, what they say, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.core.events import Busy, Event, Exited, Failed, Ready
from router.disk import disk
from router.launch.files import write_files
from router.launch.forker import ANSWER_WITHIN, Forker, packets, pair
from router.launch.logs import Logs, last_lines
from router.launch.machine import share
from router.launch.orphans import forget, remember
from router.launch.rundir import RunFolder
from router.shell.plan import Plan
from torpor.errors import InternalError

log = logging.getLogger("torpor.launcher")

BACKLOG = 1024
SHOWN = 40  # log lines that travel with a failed start: the whole stack of one that a signal killed
KILLED_WITHIN = 5.0  # seconds from KILL until whoever forked it has said that it has ended
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
        self.server.signal(self.id, self.pid, number)


class Children:
    """What launchers that fork have in common; `folder` holds run files, logs and the endpoints' own state.

    A launcher says who forks a replica (`_parent`), and what becomes of that when the replica has ended (`_left`).
    """

    def __init__(self, folder: Path, logs: Logs, run: RunFolder) -> None:
        self._folder = folder
        self._run = run
        self._logs = logs
        self._replicas: dict[str, Forked] = {}
        self._dropped: set[str] = set()  # templates that were given up before they were made
        self._starting: dict[str, asyncio.Event] = {}

    async def _parent(self, replica: str, plan: Plan, template: str | None) -> Forker:
        """Who forks a replica, ready to do so. Raises TorporError."""
        raise NotImplementedError

    async def _left(self, parent: Forker) -> None:
        """A start from this parent has failed."""

    # The engine's Launcher

    async def start(self, replica: str, plan: Plan, tell: Callable[[Event], None], template: str | None = None) -> None:
        under_way = self._starting[replica] = asyncio.Event()
        try:
            parent = await self._parent(replica, plan, template)
            try:
                forked = self._fork(parent, replica, plan, tell)
            except BaseException:
                await self._left(parent)
                raise
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
            await killed(forked)

    async def pause(self, replica: str) -> None:
        raise InternalError(f"replica {replica} cannot be frozen\nuse another `sleep` than pause")

    async def resume(self, replica: str, tell: Callable[[Event], None]) -> None:
        raise InternalError(f"replica {replica} cannot be frozen\nuse another `sleep` than pause")

    def has(self, name: str) -> bool:
        """Whether it is this launcher's replica, or one that it starts."""
        return name in self._replicas or name in self._starting

    def address(self, replica: str) -> str:
        return self._run.socket(replica)

    def said(self, replica: str) -> Mapping[str, Any]:
        forked = self._replicas.get(replica)
        return {} if forked is None else {**forked.said, "pid": forked.pid, "pids": self._pids_of(forked)}

    def _pids_of(self, forked: Forked) -> tuple[int, ...]:
        """The processes whose memory is a replica's, as far as the router sees them; their children count with them."""
        return () if forked.pid is None else (forked.pid,)

    def last_words(self, replica: str) -> tuple[str, ...]:
        forked = self._replicas.get(replica)
        return () if forked is None else tuple(last_lines(forked.log, SHOWN))

    def _heard(self, packet: dict[str, Any], parent: Forker) -> None:
        """A packet of a parent about a replica; about those of others it has nothing to say."""
        forked = self._replicas.get(packet["replica"])
        if forked is None or forked.server is not parent:
            return
        if packet["ev"] == "forked":
            forked.pid = forked.server.pid_here(int(packet["pid"]))
            self._exists(forked)
            forked.exists.set()
        elif packet["ev"] == "exited":
            self._exited(forked, int(packet["status"]), str(packet.get("why", "")))

    def _exists(self, forked: Forked) -> None:
        """A replica's process is known."""
        if forked.pid is not None:
            remember(self._run.path, forked.id, forked.pid)

    # One replica

    def _run_of(self, name: str, parent: Forker) -> Path:
        """The folder of a child's run files."""
        return self._run.path / name

    def _spec(self, name: str, plan: Plan, parent: Forker) -> dict[str, Any]:
        """What a child is told; makes the folders that it names."""
        state, run = self._folder / "endpoints" / plan.endpoint, self._run_of(name, parent)
        with disk(self._folder):
            state.mkdir(parents=True, exist_ok=True)
            run.mkdir(mode=0o700)
            try:
                told = write_files(run, plan.files)
            except BaseException:
                self._clear(name, run)
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

    def _log(self, name: str, plan: Plan, parent: Forker) -> Path:
        """A child's log, made; where it cannot be, the child's folders go."""
        try:
            with disk(self._folder):
                return self._logs.open(plan.endpoint, name)
        except BaseException:
            self._clear(name, self._run_of(name, parent))
            raise

    def _fork(self, parent: Forker, replica: str, plan: Plan, tell: Callable[[Event], None]) -> Forked:
        spec, path = self._spec(replica, plan, parent), self._log(replica, plan, parent)
        ours, theirs = pair()
        try:
            with disk(self._folder), theirs, socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self.address(replica))
                listener.listen(BACKLOG)
                with path.open("ab") as log:
                    parent.fork(spec, (listener.fileno(), theirs.fileno(), log.fileno()))
        except BaseException:
            ours.close()
            self._clear(replica, self._run_of(replica, parent))
            raise
        forked = self._replicas[replica] = Forked(replica, tell, ours, path, parent)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear, forked)
        return forked

    def _clear(self, name: str, run: Path) -> None:
        (self._run.path / f"{name}.sock").unlink(missing_ok=True)
        shutil.rmtree(run, ignore_errors=True)

    def _hear(self, forked: Forked) -> None:
        arrived, ended = packets(forked.control)
        for packet in arrived:
            try:
                self._replica_said(forked, packet)
            except (KeyError, TypeError, ValueError) as error:  # a service may write into its replica's socket
                log.warning("replica %s says what no replica does: %r", forked.id, error)
                forked.signal(signal.SIGKILL)
        if ended:
            asyncio.get_running_loop().remove_reader(forked.control.fileno())

    def _replica_said(self, forked: Forked, packet: dict[str, Any]) -> None:
        if packet["ev"] == "ready":
            forked.said = packet
            forked.tell(Ready(forked.id, packet.get("in_flight_limit"), packet.get("phases", {})))
        elif packet["ev"] == "failed":
            lines = tuple(packet.get("log", ()))[-SHOWN:] or tuple(last_lines(forked.log, SHOWN))
            forked.tell(Failed(forked.id, str(packet["error"]), lines))
        elif packet["ev"] == "busy":
            forked.tell(Busy(forked.id, int(packet["tasks"])))

    def _exited(self, forked: Forked, status: int, why: str = "") -> None:
        """Its last words first, then the whole group, then the news."""
        del self._replicas[forked.id]
        self._hear(forked)
        asyncio.get_running_loop().remove_reader(forked.control.fileno())
        forked.control.close()
        self._end_group(forked)
        self._clear(forked.id, self._run_of(forked.id, forked.server))
        forked.exists.set()
        forked.over.set()
        forked.tell(Exited(forked.id, status, tuple(last_lines(forked.log, SHOWN)), why))

    def _end_group(self, forked: Forked) -> None:
        """The children that it leaves."""
        if forked.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(forked.pid, signal.SIGKILL)
        forget(self._run.path, forked.id)


async def existing(forked: Forked) -> None:
    """Returns when the replica has a pid, or when it is over. A fork-server that hangs is ended, and all of it."""
    try:
        await asyncio.wait_for(forked.exists.wait(), FORK_WITHIN)
    except TimeoutError:
        forked.server.kill()
        await forked.exists.wait()


async def killed(forked: Forked) -> None:
    """Returns when it is over. A fork-server that does not say so is ended: a service may have stopped it."""
    forked.signal(signal.SIGKILL)
    try:
        await asyncio.wait_for(forked.over.wait(), KILLED_WITHIN)
    except TimeoutError:
        forked.server.kill()
        await forked.over.wait()
