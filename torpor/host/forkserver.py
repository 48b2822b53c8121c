"""The fork-server of an environment: a process with the imports done and no thread, whose forks are replicas.

`python -P -m torpor.host.forkserver --control-fd N`; the packets are in `docs/protocols.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from torpor.host.preload import OWN, preload, threads

PACKET = 1 << 20  # bytes
NOT_FORKED = os.EX_OSERR  # status of a replica that could not be forked
SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class ForkServer:
    """One loop over two sources: packets of the router, ends of children."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, str] = {}
        self._preloaded: list[str] = []
        self._skipped: dict[str, str] = {}

    def run(self) -> None:
        """Serves until the router is gone."""
        done, self._skipped = preload(OWN)
        self._preloaded += done
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._hear():
                return

    def _hear(self) -> bool:
        """One packet; False at the end of the router."""
        packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET, 8)
        if not packet:
            return False
        told = json.loads(packet)
        if told["op"] == "preload":
            done, skipped = preload(told["modules"])
            self._preloaded += done
            self._skipped |= skipped
            gc.collect()
            gc.freeze()  # a replica's collector must not touch, and so copy, the pages of what was imported here
            self._say(ev="ready", pid=os.getpid(), threads=threads(), preloaded=self._preloaded, skipped=self._skipped)
        elif told["op"] == "fork":
            self._fork(told["spec"], descriptors)
        return True

    def _fork(self, spec: dict[str, Any], descriptors: list[int]) -> None:
        asked = time.monotonic()
        try:
            pid = os.fork()
        except OSError as error:  # no memory or no pid for it: no reason to end the replicas that there are
            os.write(descriptors[2], f"the replica could not be forked: {error.strerror}\n".encode())
            pid = -1
        if pid == 0:
            self._become_replica(spec, descriptors, asked)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid < 0:
            self._say(ev="exited", replica=spec["replica"], pid=pid, status=NOT_FORKED)
            return
        self._children[pid] = spec["replica"]
        self._say(ev="forked", replica=spec["replica"], pid=pid)

    def _become_replica(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            from torpor.host.replica import Replica

            listener, control, log = descriptors
            status = Replica(spec, listener, control, log, asked).run()
        finally:
            # Not sys.exit: what the fork-server registered to run at its own end is not ours to run.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            replica = self._children.pop(pid, None)
            if replica is not None:
                self._say(ev="exited", replica=replica, pid=pid, status=os.waitstatus_to_exitcode(status))

    def _say(self, **packet: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the router is gone: the next read says so
            self._control.send(json.dumps(packet).encode())


def main() -> None:
    parser = argparse.ArgumentParser(prog="torpor.host.forkserver")
    parser.add_argument("--control-fd", type=int, required=True)
    fd = parser.parse_args().control_fd
    for name in SINGLE_THREADED:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # at its import it would start a thread, and no fork be safe
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    # prometheus_client looks at its import whether there are several processes; each replica sets a folder of its own.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/nonexistent"
    control = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    ForkServer(control).run()


if __name__ == "__main__":
    main()
