"""A process whose children are replicas: one loop over packets of the router and ends of children."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from torpor.host import packet
from torpor.host.spare import Spare, wait

PR_SET_PDEATHSIG = 1
AFTER = 0.25  # seconds after a start or an import until a spare is made: the start has the processor first
NOT_FORKED = os.EX_OSERR  # status of a child that could not be forked


class Forks:
    """What a fork-server and a template have in common; the packets are in `docs/protocols.md`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, str] = {}
        self._spare: Spare | None = None
        self._due = math.inf  # when a spare is to be made

    def become(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> int:
        """In the child: lives its life and returns its exit status. `asked`: the monotonic instant of the request."""
        raise NotImplementedError

    def hear(self, told: dict[str, Any], descriptors: list[int]) -> None:
        """One packet of the router."""
        if told["op"] == "fork":
            self._fork(told["spec"], descriptors)
        elif told["op"] == "signal":  # of a router that is in another namespace of pids
            self._signal(told["replica"], told["number"])

    def serve(self) -> None:
        """Returns when the router has hung up."""
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._pause())}
            if not ready:
                self._make_spare()
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if self._control.fileno() in ready:
                told, descriptors = packet.receive(self._control)
                if told is None:
                    return
                self.hear(told, descriptors)

    def rehearse(self) -> None:
        """In a spare, before it waits: what each start would do alike."""

    def ended(self, pid: int, status: int) -> str:
        """A child has ended; what there is to say of it beyond its status."""
        return ""

    def soon(self) -> None:
        """A spare is to be made when nothing starts just now."""
        self._due = time.monotonic() + AFTER

    def discard_spare(self) -> None:
        if self._spare is not None:
            self._spare.discard()
            self._spare = None

    def say(self, **told: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the router is gone: the next read says so
            packet.send(self._control, told)

    def _fork(self, spec: dict[str, Any], descriptors: list[int]) -> None:
        asked = time.monotonic()
        try:
            pid = self._child(spec, descriptors, asked) or os.fork()
        except OSError as error:  # no memory or no pid for it: no reason to end the children that there are
            os.write(descriptors[-1], f"the replica could not be forked: {error.strerror}\n".encode())
            pid = -1
        if pid == 0:
            self._in_child(spec, descriptors, asked)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid < 0:
            self.say(ev="exited", replica=spec["replica"], pid=pid, status=NOT_FORKED)
            return
        self._children[pid] = spec["replica"]
        self.say(ev="forked", replica=spec["replica"], pid=pid)

    def _child(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> int | None:
        """The pid of the spare, which has been told what to become; None where there is none."""
        spare, self._spare = self._spare, None
        if not spec.get("alone"):
            self.soon()
        return spare.pid if spare is not None and spare.take(spec, descriptors, asked) else None

    def _pause(self) -> float | None:
        """Milliseconds until a spare is to be made, None for never."""
        return None if self._due == math.inf else max(0.0, (self._due - time.monotonic()) * 1000)

    def _make_spare(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = math.inf
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:  # no room for it now; the next start forks for itself, and asks again
            ours.close()
            theirs.close()
            return
        if pid == 0:
            ours.close()
            self._as_child(lambda: self.become(*wait(theirs, self.rehearse)))
        theirs.close()
        self._spare = Spare(pid, ours)
        self.say(ev="spare", pid=pid)

    def _in_child(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> NoReturn:
        self._as_child(lambda: self.become(spec, descriptors, asked))

    def _as_child(self, live: Callable[[], int]) -> NoReturn:
        status = 1
        try:
            end_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            self._children = {}
            status = live()
        except BaseException:  # the edge of the process
            traceback.print_exc()
        finally:
            # Not sys.exit: what the parent registered to run at its own end is not ours to run.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._spare is not None and self._spare.pid == pid:
                self.discard_spare()
                self.soon()
            replica = self._children.pop(pid, None)
            if replica is not None:
                code = os.waitstatus_to_exitcode(status)
                self.say(ev="exited", replica=replica, pid=pid, status=code, why=self.ended(pid, code))

    def _signal(self, replica: str, number: int) -> None:
        """The whole group, or itself where it has not become the leader yet; one that is reaped gets none."""
        for pid in [pid for pid, name in self._children.items() if name == replica]:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                os.kill(pid, number)


def end_with_parent() -> None:
    """Has the kernel send TERM when the parent ends (prctl(2)): a child that still loads reads no end of file."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
