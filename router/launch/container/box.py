"""A container of the router: its first process is a fork-server, which speaks through a socket in a shared folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from router.disk import disk
from router.launch.container.api import ContainerApi
from router.launch.forker import WAITING, Forker
from router.launch.rundir import RunFolder
from torpor.errors import EngineFailed, InternalError, TorporError

log = logging.getLogger("torpor.launcher")

CONNECT_WITHIN = 120.0  # seconds from the container's start until its fork-server has done its imports
ENDED_WITHIN = 10.0  # seconds until the engine has noticed the end of a process that hung up
KILLED_AGAIN = 1.0  # seconds until one that was killed and has not ended is killed again
ENDED = ("exited", "stopped", "dead", "removing")  # states of a container
SHOWN = 40  # lines of a container that could not start
MiB = 1 << 20


class Box(Forker):
    """`gone` is called once, when its fork-server has hung up; `over` is set when the container is removed.

    Its run folder is one of the router's, by its name. `template`: it is kept to fork from, else it ends with its
    one replica.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        api: ContainerApi,
        run: RunFolder,
        told: Callable[[dict[str, Any], Any], None],
        gone: Callable[[Any], None],
    ) -> None:
        super().__init__(run.path / name, told, gone)
        self.id = name
        self.endpoint = endpoint
        self.folder = run.path / name
        self.container: str | None = None
        self.pid: int | None = None  # of its first process, as the host sees it; None where it does not
        self.over = asyncio.Event()
        self.template = False
        self.frozen = False
        self.buried = False  # its end is under way
        self.missing = False  # somebody else removed it before it was started
        self.why = ""  # it ended, where the kernel ended it
        self._api = api
        self._run = run
        self._door: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, config: dict[str, Any], name: str) -> None:
        """Makes the container; nothing runs in it yet. Raises TorporError: then there is none."""
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with disk(self.folder):
                door.bind(self._run.at(f"{self.id}/control"))
            (self.folder / "control").chmod(0o666)  # the folder is the container's alone
            door.listen(1)
            door.setblocking(False)
            self.container = await self._api.create(name, config)
        except BaseException:
            door.close()
            raise
        self._door = door

    async def start(self) -> None:
        """Returns when its fork-server speaks. Raises TorporError, with the container's last words, if it ended."""
        assert self.container is not None
        assert self._door is not None
        accepted = asyncio.ensure_future(self._accept(self._door))
        try:
            await self._run_it(self.container)
            told = await self._api.inspect(self.container)  # while it does its imports
            self.pid = visible(int(((told or {}).get("State") or {}).get("Pid") or 0))
            ended = asyncio.ensure_future(self._api.wait(self.container))
            try:
                await asyncio.wait({accepted, ended}, timeout=CONNECT_WITHIN, return_when=asyncio.FIRST_COMPLETED)
                if not accepted.done():
                    raise await self._not_started(ended)
            finally:
                ended.cancel()
                with contextlib.suppress(asyncio.CancelledError, TorporError):
                    await ended
            self._listen(accepted.result())
        finally:
            accepted.cancel()
            self._close_door()
            (self.folder / "control").unlink(missing_ok=True)  # what runs in it cannot come back to it

    async def preload(self, modules: tuple[str, ...]) -> dict[str, Any]:
        self._send({"op": "preload", "modules": list(modules)})
        return await self._answer()

    async def pause(self) -> None:
        assert self.container is not None
        await self._api.pause(self.container)
        self.frozen = True

    async def unpause(self) -> None:
        assert self.container is not None
        await self._api.unpause(self.container)
        self.frozen = False

    def signal(self, child: str, pid: int | None, number: int) -> None:
        """Its fork-server passes it on: the router need not see the process."""
        with contextlib.suppress(TorporError):  # it is gone: `gone` was told
            self._send({"op": "signal", "replica": child, "number": int(number)})

    def pid_here(self, pid: int) -> int | None:
        return None if self.pid is None else child_of(self.pid, pid)

    def _lost(self) -> InternalError:
        how = f": it {self.why}" if self.why else ""
        return InternalError(f"the container {self.id} is gone{how}\nthe next call starts another")

    def kill(self) -> None:
        self._do(self._kill())

    async def ended(self) -> None:
        """Hangs up and returns when it has ended; `why` tells how."""
        self._hang_up()
        if self.container is not None:
            try:
                await self._look_at_the_end(self.container)
            except TorporError as error:
                self.why = f"ended, and {str(error).partition(chr(10))[0]}"

    async def remove(self) -> None:
        """Also while it runs. One that the engine cannot remove is reaped later."""
        try:
            if self.container is not None:
                await self._api.remove(self.container)
        except TorporError as error:
            log.warning("container %s: %s", self.id, str(error).partition("\n")[0])
        finally:
            self._close_door()
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
            self.over.set()

    async def _run_it(self, container: str) -> None:
        try:
            await self._api.start(container)
        except EngineFailed:
            self.missing = await self._api.inspect(container) is None
            raise

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    async def _accept(self, door: socket.socket) -> socket.socket:
        control, _ = await asyncio.get_running_loop().sock_accept(door)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING)
        control.setblocking(False)
        return control

    async def _not_started(self, ended: asyncio.Future[int]) -> EngineFailed:
        assert self.container is not None
        lines = await self._api.lines(self.container, SHOWN)
        said = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        if not ended.done():
            what = f"did not come up within {CONNECT_WITHIN:.0f} s"
        else:
            await self._look_at_the_end(self.container)
            what = self.why or f"ended at once with status {ended.result()}"
        return EngineFailed(f"its container {what}: {said}\nsee its log", detail={"log": lines})

    async def _look_at_the_end(self, container: str) -> None:
        give_up = time.monotonic() + ENDED_WITHIN
        while (told := await self._api.inspect(container)) is not None:
            state = told.get("State") or {}
            if state.get("Running") and time.monotonic() < give_up and not self.frozen:
                await asyncio.sleep(0.02)
                continue
            if state.get("OOMKilled"):
                limit = int((told.get("HostConfig") or {}).get("Memory") or 0)
                self.why = f"was ended by the kernel for lack of memory: its container may use {limit / MiB:.0f} MiB"
            return

    async def _kill(self) -> None:
        """Until it has ended. Not by the engine alone, which may be down; what is frozen dies once it goes on."""
        if self.pid is not None and visible(self.pid) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)
        while self.container is not None and not self.over.is_set():
            with contextlib.suppress(TorporError):
                state = (await self._api.inspect(self.container) or {}).get("State") or {}
                if not state or state.get("Status") in ENDED:
                    return
                if state.get("Paused"):
                    await self.unpause()
                await self._api.kill(self.container)  # refused for one whose start is under way
            await asyncio.sleep(KILLED_AGAIN)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def visible(pid: int) -> int | None:
    """A container's first process, if it is one of this machine that the router sees: its last pid in /proc is 1."""
    return pid if pid > 1 and namespaced(pid)[1:] == (1,) else None


def child_of(first: int, inner: int) -> int | None:
    """The child of a container's first process that has a pid there, by its pid here (proc(5), NSpid)."""
    with contextlib.suppress(OSError):
        for name in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            if namespaced(int(name))[1:] == (inner,):
                return int(name)
    return None


def namespaced(pid: int) -> tuple[int, ...]:
    """A process's pids, from this namespace inwards."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return tuple(map(int, line.split()[1:]))
    return ()
