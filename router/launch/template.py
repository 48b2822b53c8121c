"""A template of the router: a fork of a fork-server that has one revision's service loaded and serves no calls."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.launch.forker import Forker
from router.launch.orphans import signal_group


class Template(Forker):
    """`over` is set when the process is reaped; `reason` says why the revision cannot have one."""

    def __init__(
        self,
        name: str,
        parent: Forker,
        control: socket.socket,
        log: Path,
        told: Callable[[dict[str, Any], Any], None],
        gone: Callable[[Any], None],
    ) -> None:
        super().__init__(log, told, gone)
        self.id = name
        self.parent = parent
        self.pid: int | None = None
        self.reason: str | None = None
        self.over = asyncio.Event()
        self._listen(control)

    async def load(self) -> None:
        """Returns when the service is loaded, or cannot be and `reason` says so. Raises InternalError."""
        said = await self._answer()
        self.reason = said.get("refused")

    def end(self) -> None:
        """Hangs up: the process ends when it reads that."""
        self._hang_up()

    def kill(self) -> None:
        if self.pid is not None and not self.over.is_set():
            signal_group(self.pid, signal.SIGKILL)
