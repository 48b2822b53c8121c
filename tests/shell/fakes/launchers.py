"""Launchers on a stage: the platform's own with processes, and the fake one, as one contract sees them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from router.core.events import Event
from router.launch.logs import Logs
from router.launch.orphans import born
from router.launch.process import ProcessLauncher
from router.shell.plan import Launching, Plan
from tests.shell.fakes.launcher import FakeLauncher

PATIENCE = 60.0  # seconds until a scenario that hangs is a failure

SERVICE = """
import importlib.machinery, os, signal, subprocess, sys, threading, time, types
import bentoml

@bentoml.service
class Good:
    @bentoml.api
    def hi(self) -> str:
        return "hi"

@bentoml.service
class Broken:
    def __init__(self) -> None:
        1 / 0

@bentoml.service
class Slow:
    def __init__(self) -> None:
        print("loads for ever", flush=True)
        time.sleep(3600)

@bentoml.service
class Stubborn:
    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

@bentoml.service
class Threaded:
    def __init__(self) -> None:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()

@bentoml.service
class Quits:
    def __init__(self) -> None:
        sys.exit("no GPU here")

@bentoml.service
class Many:
    def __init__(self) -> None:
        for number in range(24_000):
            name = f"many.modules.of_a_library_with_long_names.number_{number}"
            module = sys.modules[name] = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="/elsewhere/module.py")

@bentoml.service
class Parent:
    def __init__(self) -> None:
        child = subprocess.Popen(["sleep", "3600"])
        print("child", child.pid, flush=True)
"""


class Heard(list[Event]):
    """What a launcher told of its replicas."""

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]

    async def until(self, kind: type[Event]) -> Any:
        while not (found := self.of(kind)):  # noqa: ASYNC110 - what is waited for is told by a plain callback
            await asyncio.sleep(0.002)
        return found[-1]


class Stage(Protocol):
    """A launcher, and what a test needs around it."""

    @property
    def launcher(self) -> Launching: ...

    def plan(self, kind: str, **rest: Any) -> Plan: ...

    def kill(self, replica: str) -> None: ...

    def log(self, replica: str) -> str: ...


class FakeStage:
    def __init__(self) -> None:
        self.launcher = FakeLauncher()

    def plan(self, kind: str, **rest: Any) -> Plan:
        return Plan(**{"folder": Path("/src"), "python": Path("/usr/bin/python"), **common(kind), **rest})

    def kill(self, replica: str) -> None:
        self.launcher.kill(replica)

    def log(self, replica: str) -> str:
        return "loads for ever"


class RealStage:
    """The platform's own launcher, in a folder of its own whose path is longer than a socket's may be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ("deep" * 30)
        (self.folder / "src").mkdir(parents=True)
        (self.folder / "src" / "service.py").write_text(SERVICE)
        self.now = 0.0  # the launcher's clock
        self.launcher = ProcessLauncher(self.folder, Logs(self.folder / "logs"), lambda: self.now)

    def plan(self, kind: str, **rest: Any) -> Plan:
        python = Path(sys.executable)
        return Plan(**{"folder": self.folder / "src", "python": python, "learn": True, **common(kind), **rest})

    def kill(self, replica: str) -> None:
        os.kill(int(self.launcher.said(replica)["pid"]), signal.SIGKILL)

    def log(self, replica: str) -> str:
        return (self.folder / "logs" / "e" / f"{replica}.log").read_text()

    def left(self) -> list[str]:
        """What is left of replicas in the folder of what runs."""
        return sorted(p.name for p in (self.folder / "run").iterdir() if not p.name.startswith("forkserver"))


def common(kind: str) -> dict[str, Any]:
    return {"endpoint": "e", "revision": 1, "bento": None, "target": f"service:{kind}"}


Play = Callable[[Coroutine[Any, Any, None]], None]


async def gone(pid: int) -> None:
    """A killed process leaves the table some time soon."""
    give_up = time.monotonic() + PATIENCE
    while born(pid) is not None:
        assert time.monotonic() < give_up, f"{pid} is still there"
        await asyncio.sleep(0.002)
