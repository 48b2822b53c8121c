"""The fork-server of an environment: a process with the imports done and no thread. It forks replicas and templates.

`python -P -m torpor.host.forkserver --control-fd N`; the packets are in `docs/protocols.md`. In a container it is the
first process, and connects to the router itself: `--control-path /run/torpor/control`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import socket
import sys
from typing import Any

from torpor.host.charge import Charge
from torpor.host.forks import Forks
from torpor.host.preload import OWN, preload, threads
from torpor.host.seal import seal

SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class ForkServer(Forks):
    """Imports what it is told to import before the first fork, and after it too."""

    def __init__(self, control: socket.socket, own: tuple[list[str], dict[str, str]]) -> None:
        super().__init__(control)
        self._own: tuple[list[str], dict[str, str]] | None = own  # what it has imported already, until it is told

    def hear(self, told: dict[str, Any], descriptors: list[int]) -> None:
        if told["op"] != "preload":
            return super().hear(told, descriptors)
        self.discard_spare()  # it lacks what is imported now
        done, skipped = preload(told["modules"])
        if self._own is not None:
            done, skipped = self._own[0] + done, self._own[1] | skipped
            self._own = None
        gc.collect()
        gc.freeze()  # a replica's collector must not touch, and so copy, the pages of what was imported here
        self.say(ev="ready", pid=os.getpid(), threads=threads(), preloaded=done, skipped=skipped)
        self.soon()
        return None

    def become(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> int:
        if spec.get("template"):
            from torpor.host.template import Template

            control, log = descriptors
            return Template(spec, control, log).run()
        from torpor.host.replica import Replica

        listener, control, log = descriptors
        return Replica(spec, listener, control, log, asked).run()


class Contained(ForkServer):
    """The first process of a container: nobody else ends what a replica leaves, or sees why the kernel ended it."""

    def __init__(self, control: socket.socket, own: tuple[list[str], dict[str, str]]) -> None:
        super().__init__(control, own)
        self._charge = Charge()

    def ended(self, pid: int, status: int) -> str:
        with contextlib.suppress(ProcessLookupError):  # no process gets the pid of a group that has members
            os.killpg(pid, signal.SIGKILL)
        return self._charge.told() if status < 0 else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="torpor.host.forkserver")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--control-fd", type=int)
    where.add_argument("--control-path", help="of a socket that the router listens at")
    parser.add_argument("--rehearse", action="store_true", help="try each import in a child before")
    options = parser.parse_args()
    for name in SINGLE_THREADED:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # at its import it would start a thread, and no fork be safe
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    # prometheus_client looks at its import whether there are several processes; each replica sets a folder of its own.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/nonexistent"
    own = preload(OWN, rehearse=options.rehearse)
    if threads() > 1 and not options.rehearse:  # not in the versions that torpor brings; again, with more care
        os.execv(sys.executable, [*sys.orig_argv, "--rehearse"])
    if options.control_path is not None:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.connect(options.control_path)
        seal()
        return Contained(control, own).serve()
    control = socket.socket(fileno=options.control_fd)
    control.set_inheritable(False)
    return ForkServer(control, own).serve()


if __name__ == "__main__":
    main()
