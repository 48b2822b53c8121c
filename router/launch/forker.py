"""The router's end of a process that forks replicas: its control socket and its packets.

A fork-server is one, and so is a template. The bytes are in `docs/protocols.md`, "Router and fork-server".
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router.launch.logs import last_lines
from router.launch.orphans import signal_group
from torpor.errors import InternalError
from torpor.host import packet

log = logging.getLogger("torpor.launcher")

WAITING = 1 << 20  # bytes of packets that may wait for a process that is busy, less where the kernel allows less
ANSWER_WITHIN = 120.0  # seconds until it has done its imports, or has loaded its service
SHOWN = 5  # log lines of a fork-server that is gone
AT_ONCE = 256  # packets that are read before others have their turn: a service may fill its socket for ever


def packets(ends: socket.socket) -> tuple[list[dict[str, Any]], bool]:
    """The packets that wait in a non-blocking socket, and whether the other side is gone."""
    out: list[dict[str, Any]] = []
    while len(out) < AT_ONCE:
        try:
            told, descriptors = packet.receive(ends)
        except BlockingIOError:
            return out, False
        except (ConnectionError, ValueError):  # it is gone, or says what is no packet
            return out, True
        for descriptor in descriptors:  # none of ours sends any this way
            os.close(descriptor)
        if told is None:
            return out, True
        out.append(told)
    return out, False


def pair() -> tuple[socket.socket, socket.socket]:
    """Our end, which does not block, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING)
    ours.setblocking(False)
    return ours, theirs


class Forker:
    """`told` takes each packet about a replica, and its sender; `gone` is called once, when the other side hung up."""

    def __init__(self, log: Path, told: Callable[[dict[str, Any], Any], None], gone: Callable[[Any], None]) -> None:
        self._log = log
        self._told = told
        self._gone = gone
        self._control: socket.socket | None = None
        self._answers: list[asyncio.Future[dict[str, Any]]] = []

    @property
    def alive(self) -> bool:
        return self._control is not None

    def fork(self, spec: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Asks for a child; `forked` and `exited` follow by `told`. Raises InternalError."""
        self._send({"op": "fork", "spec": spec}, descriptors)

    def kill(self) -> None:
        """Ends the process without a word."""
        raise NotImplementedError

    def signal(self, child: str, pid: int | None, number: int) -> None:
        """Signals the whole group of one that it forked. `pid`: None where it is not known."""
        if pid is not None:
            signal_group(pid, number)

    def pid_here(self, pid: int) -> int | None:
        """A child's pid in this process's namespace, None where it cannot be seen."""
        return pid

    def _listen(self, control: socket.socket) -> None:
        self._control = control
        asyncio.get_running_loop().add_reader(control.fileno(), self._read)

    async def _answer(self) -> dict[str, Any]:
        """The next `ready`. A process that does not say it in time is ended. Raises InternalError."""
        answer = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), ANSWER_WITHIN)
        except TimeoutError:
            self.kill()
            raise self._lost() from None

    def _send(self, told: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        if self._control is None:
            raise self._lost()
        try:
            packet.send(self._control, told, descriptors)
        except BlockingIOError:
            raise InternalError(
                "a forking process has not yet taken what it was told before\ntry again later"
            ) from None
        except packet.TooLong as error:
            raise InternalError(f"a forking process cannot be told: {error}\ndeploy a smaller service") from error
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> InternalError:
        return InternalError(
            f"a forking process is gone: {' | '.join(last_lines(self._log, SHOWN))}\n"
            f"see {self._log}; the next call starts it again"
        )

    def _read(self) -> None:
        if self._control is None:
            return
        arrived, ended = packets(self._control)
        for told in arrived:
            try:
                self._hear(told)
            except (KeyError, TypeError, ValueError) as error:  # a service may write into it, where they share a fork
                log.warning("a forking process says what none does: %r", error)
                ended = True
        if ended:
            self.kill()
            self._hang_up()
            self._gone(self)

    def _hear(self, told: dict[str, Any]) -> None:
        if told["ev"] == "ready":
            if self._answers and not (answer := self._answers.pop(0)).done():
                answer.set_result(told)
        elif told["ev"] != "spare":  # which is its own until it has become a replica
            self._told(told, self)

    def _hang_up(self) -> None:
        """Whoever waits for an answer gets none."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(self._lost())
        self._answers.clear()
