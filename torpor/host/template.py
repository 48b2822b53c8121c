"""A template: a process that has one revision's service made and serves no calls; its forks are replicas.

Whether a service survives a fork is found out by looking: a thread or a descriptor that it has opened would be shared,
or missing, in every fork.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import stat
import sys
import traceback
from pathlib import Path
from typing import Any

from torpor.host.factory import Factory
from torpor.host.forks import Forks
from torpor.host.preload import threads
from torpor.host.replica import Replica, sentence, set_environment, take_log
from torpor.host.service import hold_sessions, load, log_to_stdout, open_task_store, rehearse_sessions, release_sessions


class Template(Forks):
    """`control` speaks to the router as a fork-server's does; `ready` carries `refused` where no fork can be had."""

    def __init__(self, spec: dict[str, Any], control: int, log: int) -> None:
        super().__init__(socket.socket(fileno=control))
        self._spec = spec
        self._log = log
        self._made: Factory | None = None

    def run(self) -> int:
        """Serves until the router hangs up, or ends at once with the reason why it cannot."""
        os.setsid()
        take_log(self._log)
        set_environment(self._spec)
        before = descriptors()
        try:
            self._made = self._make()
            refused = why_not(self._made, before)
        except (Exception, SystemExit) as error:  # the edge of the process: a service's own code may raise anything
            traceback.print_exc()
            refused = f"its service cannot be made without an event loop: {sentence(error)}"
        self.say(ev="ready", refused=refused)
        if refused is not None:
            return 1
        gc.collect()
        gc.freeze()
        self.soon()
        self.serve()
        return 0

    def become(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> int:
        assert self._made is not None
        release_sessions()
        reseed()
        self._made.forked()
        listener, control, log = descriptors
        return Replica(spec, listener, control, log, asked).run(self._made)

    def rehearse(self) -> None:
        """The first run of a graph takes its memory: in a spare that has been taken already."""
        rehearse_sessions()

    def _make(self) -> Factory:
        log_to_stdout()
        hold_sessions()
        service = load(self._spec["target"], self._spec["folder"], self._spec.get("bento"), proven=True)
        open_task_store(service)
        factory = Factory(service)
        factory.make_ready()
        return factory


def why_not(made: Factory, before: dict[int, str]) -> str | None:
    """Why forks of this process cannot be replicas, None when they can."""
    if made.service.dependencies:
        return "it holds other services"
    if made.service.mount_apps:
        return "it mounts applications"
    if (count := threads()) > 1:
        return f"it runs {count} threads once it is loaded"
    if children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        return f"it has {len(children)} child processes"
    for fd, what in descriptors().items():
        if before.get(fd) != what and not harmless(fd):
            return f"it holds {what} open"
    return None


def descriptors() -> dict[int, str]:
    """What is open, by descriptor, less the one of this very look."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def harmless(fd: int) -> bool:
    """A regular file that is only read from its map: a shared position in it does not matter to who maps it."""
    try:
        opened = os.stat(fd)
        told = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    except OSError:
        return True  # closed meanwhile
    return stat.S_ISREG(opened.st_mode) and int(told["flags"], 8) & os.O_ACCMODE == os.O_RDONLY and not int(told["pos"])


def reseed() -> None:
    """Every replica its own random numbers, where a library keeps one generator for the whole process."""
    random.seed()
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()
