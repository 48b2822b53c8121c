"""The fork-server of an environment: a process with the imports done and no thread. It forks replicas and templates.

`python -P -m torpor.host.forkserver --control-fd N`; the packets are in `docs/protocols.md`.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import socket
import sys
import time
from typing import Any

from torpor.host.forks import Forks
from torpor.host.preload import OWN, preload, threads
from torpor.host.spare import Spare, wait

AFTER = 0.25  # seconds after a start or an import until a spare is made: the start has the processor first
SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class ForkServer(Forks):
    """Imports what it is told to import before the first fork, and after it too."""

    def __init__(self, control: socket.socket, own: tuple[list[str], dict[str, str]]) -> None:
        super().__init__(control)
        self._own: tuple[list[str], dict[str, str]] | None = own  # what it has imported already, until it is told
        self._spare: Spare | None = None
        self._due = math.inf  # when a spare is to be made

    def hear(self, told: dict[str, Any], descriptors: list[int]) -> None:
        if told["op"] != "preload":
            return super().hear(told, descriptors)
        if self._spare is not None:  # it lacks what is imported now
            self._spare.discard()
            self._spare = None
        done, skipped = preload(told["modules"])
        if self._own is not None:
            done, skipped = self._own[0] + done, self._own[1] | skipped
            self._own = None
        gc.collect()
        gc.freeze()  # a replica's collector must not touch, and so copy, the pages of what was imported here
        self.say(ev="ready", pid=os.getpid(), threads=threads(), preloaded=done, skipped=skipped)
        self._due = time.monotonic() + AFTER
        return None

    def pause(self) -> float | None:
        return None if self._due == math.inf else max(0.0, (self._due - time.monotonic()) * 1000)

    def rest(self) -> None:
        """Makes a spare, when nothing starts just now."""
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
            self.as_child(lambda: self.become(*wait(theirs)))
        theirs.close()
        self._spare = Spare(pid, ours)
        self.say(ev="spare", pid=pid)

    def child(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> int | None:
        spare, self._spare = self._spare, None
        self._due = time.monotonic() + AFTER
        return spare.pid if spare is not None and spare.take(spec, descriptors, asked) else None

    def ended(self, pid: int) -> None:
        if self._spare is not None and self._spare.pid == pid:
            self._spare.discard()
            self._spare = None
            self._due = time.monotonic() + AFTER

    def become(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> int:
        if spec.get("template"):
            from torpor.host.template import Template

            control, log = descriptors
            return Template(spec, control, log).run()
        from torpor.host.replica import Replica

        listener, control, log = descriptors
        return Replica(spec, listener, control, log, asked).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="torpor.host.forkserver")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--rehearse", action="store_true", help="try each import in a child before")
    options = parser.parse_args()
    fd = options.control_fd
    for name in SINGLE_THREADED:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # at its import it would start a thread, and no fork be safe
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    # prometheus_client looks at its import whether there are several processes; each replica sets a folder of its own.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/nonexistent"
    own = preload(OWN, rehearse=options.rehearse)
    if threads() > 1 and not options.rehearse:  # not in the versions that torpor brings; again, with more care
        os.execv(sys.executable, [*sys.orig_argv, "--rehearse"])
    control = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    ForkServer(control, own).serve()


if __name__ == "__main__":
    main()
