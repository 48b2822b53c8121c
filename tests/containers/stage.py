"""The container launcher on a stage, as the contract of launchers sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from router.launch.container.api import ContainerApi
from router.launch.container.launcher import ContainerLauncher
from router.launch.container.platform import Platform
from router.launch.logs import Logs
from router.launch.rundir import RunFolder
from router.shell.plan import Contained, Plan
from tests.shell.fakes.launchers import SERVICE, common

LIMIT = 1 << 30  # bytes of a container


class ContainerStage:
    """In a folder of its own whose path is longer than a socket's may be."""

    def __init__(self, folder: Path, engine: Path, image: str, api: type[ContainerApi] = ContainerApi) -> None:
        self.folder = folder / ("deep" * 30)
        (self.folder / "src").mkdir(parents=True)
        (self.folder / "src" / "service.py").write_text(SERVICE)
        (self.folder / "logs").mkdir()
        self.image = image
        self.run = RunFolder(self.folder / "run")
        self.run.open()
        self.api = api(engine)
        self.platform = Platform(self.folder, self.api)
        logs = Logs(self.folder / "logs")
        home = self.folder / "bentoml"
        self.launcher = ContainerLauncher(self.folder, logs, self.run, self.api, self.platform, home, LIMIT)

    def plan(self, kind: str, box: dict[str, Any] | None = None, **rest: Any) -> Plan:
        contained = Contained(self.image, **(box or {}))
        fields = {"folder": self.folder / "src", "python": Path(sys.executable), "learn": True, "contained": contained}
        return Plan(**{**fields, **common(kind), **rest})

    def kill(self, replica: str) -> None:
        os.kill(int(self.launcher.said(replica)["pid"]), signal.SIGKILL)

    def log(self, replica: str) -> str:
        return (self.folder / "logs" / "e" / f"{replica}.log").read_text()

    @property
    def label(self) -> str:
        return f"torpor.platform={self.platform.id()}"

    async def containers(self) -> list[dict[str, Any]]:
        """Those that this platform has."""
        return await self.api.labelled(self.label)

    def left(self) -> list[str]:
        """What is left in the folder of what runs."""
        return sorted(path.name for path in self.run.path.iterdir())

    async def cleared(self) -> None:
        """Returns when no container is left, and no folder of one."""
        while await self.containers() or self.left():  # noqa: ASYNC110 - the engine's, and files
            await asyncio.sleep(0.02)
