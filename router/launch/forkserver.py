"""The router's end of one fork-server: its process, its packets, the replicas that it forked.

The bytes are in `docs/protocols.md`, "Router and fork-server".
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router.launch.logs import last_lines
from torpor.errors import InternalError

PACKET = 1 << 20  # bytes; the longest packet of either side (a schema, a list of modules)
SPAWN_WITHIN = 120.0  # seconds until a fork-server has done its imports
SHOWN = 5  # log lines of a fork-server that is gone
CLOSE_WITHIN = 5.0  # seconds until a fork-server that sees the end of its control socket has ended
# Libraries that start a thread per core when they are imported would forbid the fork.
SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def packets(ends: socket.socket) -> tuple[list[dict[str, Any]], bool]:
    """All packets that wait in a non-blocking socket, and whether the other side is gone."""
    out: list[dict[str, Any]] = []
    while True:
        try:
            packet = ends.recv(PACKET)
        except BlockingIOError:
            return out, False
        except ConnectionError:
            return out, True
        if not packet:
            return out, True
        out.append(json.loads(packet))


def pair() -> tuple[socket.socket, socket.socket]:
    """Our end, which does not block, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PACKET)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET)
    ours.setblocking(False)
    return ours, theirs


class ForkServer:
    """`told` takes each packet about a replica; `gone` is called once when the process has ended."""

    def __init__(
        self, python: Path, log: Path, told: Callable[[dict[str, Any]], None], gone: Callable[[ForkServer], None]
    ) -> None:
        self._python = python
        self._log = log
        self._told = told
        self._gone = gone
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: list[asyncio.Future[dict[str, Any]]] = []
        self.ready: dict[str, Any] = {}
        self.preloaded: set[str] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._control is not None

    async def spawn(self) -> None:
        """Starts the process and waits for its imports. Raises InternalError when it does not come up.

        Cancelled or failed, it leaves no process.
        """
        ours, theirs = pair()
        env = {**os.environ, **dict.fromkeys(SINGLE_THREADED, "1")}
        command = [str(self._python), "-P", "-m", "torpor.host.forkserver", "--control-fd", str(theirs.fileno())]
        try:
            with theirs, self._log.open("ab") as out:
                # A few ms; were it done in a thread, a caller who is cancelled would leave a process without a pid.
                self._process = subprocess.Popen(  # noqa: ASYNC220
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=env,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise InternalError(
                f"{self._python} cannot be run: {error.strerror}\ndeploy again: that makes the environment anew"
            ) from None
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)
        try:
            await self.preload(())
        except BaseException:
            self.kill()
            self._hang_up()
            raise

    async def preload(self, modules: Sequence[str]) -> None:
        """Has modules imported before the next fork; those that start threads are skipped over there."""
        wanted = [m for m in modules if m not in self.preloaded]
        if not wanted and self.ready:
            return
        self.preloaded.update(wanted)
        answer = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._send({"op": "preload", "modules": wanted})
        try:
            self.ready = await asyncio.wait_for(asyncio.shield(answer), SPAWN_WITHIN)
        except TimeoutError:
            self.kill()
            raise self._lost() from None

    def fork(self, spec: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Asks for a replica; `forked` and `exited` follow by `told`."""
        self._send({"op": "fork", "spec": spec}, descriptors)

    def kill(self) -> None:
        """Ends the process without a word, and leaves nothing of it to be reaped."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            asyncio.get_running_loop().run_in_executor(None, self._process.wait)

    async def close(self) -> None:
        """Ends the process: it sees the end of its control socket."""
        self._hang_up()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, CLOSE_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)

    def _send(self, packet: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        if self._control is None:
            raise self._lost()
        try:
            socket.send_fds(self._control, [json.dumps(packet).encode()], list(descriptors))
        except BlockingIOError:
            raise InternalError("the fork-server has not yet taken what it was told before\ntry again later") from None
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> InternalError:
        said = " | ".join(last_lines(self._log, SHOWN))
        return InternalError(f"the fork-server is gone: {said}\nsee {self._log}; the next call starts it again")

    def _read(self) -> None:
        if self._control is None:
            return
        arrived, ended = packets(self._control)
        for packet in arrived:
            if packet["ev"] == "ready":
                if self._answers and not (answer := self._answers.pop(0)).done():
                    answer.set_result(packet)
            else:
                self._told(packet)
        if ended:
            self.kill()
            self._hang_up()
            for answer in self._answers:
                if not answer.done():
                    answer.set_exception(self._lost())
            self._answers.clear()
            self._gone(self)

    def _hang_up(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
