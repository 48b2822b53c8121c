"""A service whose calls last as long as a test wants: each holds until a file, its gate, is there."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import bentoml
import marker  # type: ignore[import-not-found]  # beside this folder, as an installed package would be


def pass_gate(gate: Path) -> None:
    """Says that it has begun, waits, and says that it is done."""
    gate.with_name(gate.name + ".begun").touch()
    while not gate.exists():
        time.sleep(0.005)
    gate.with_name(gate.name + ".done").touch()


class Methods:
    @bentoml.api
    def hold(self, gate: str) -> str:
        pass_gate(Path(gate))
        return "held"

    @bentoml.api
    async def stubborn(self, gate: str) -> str:
        """Goes on when it is cancelled."""
        holding = asyncio.ensure_future(asyncio.to_thread(pass_gate, Path(gate)))
        while not holding.done():
            try:
                await asyncio.shield(holding)
            except asyncio.CancelledError:
                continue
        return "held"

    @bentoml.api
    async def endless(self, gate: str) -> AsyncGenerator[str, None]:
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            Path(gate).with_name("stream.over").touch()

    @bentoml.api
    def pieces(self, gate: str) -> Generator[str, None, None]:
        """The second piece is made in a thread, which nothing can cancel."""
        yield "begun"
        pass_gate(Path(gate))
        yield "more"

    @bentoml.api
    def upload(self, file: Path, gate: str) -> int:
        """Not in the lean lane."""
        pass_gate(Path(gate))
        return len(file.read_bytes())

    @bentoml.api(batchable=True, max_batch_size=4)
    def batch(self, texts: list[str]) -> list[int]:
        """Each text's answer is the size of its batch; a text that is a path is a gate."""
        for text in texts:
            if text.startswith("/"):
                pass_gate(Path(text))
        return [len(texts)] * len(texts)

    @bentoml.api(batchable=True)
    def short(self, texts: list[str]) -> list[str]:
        """One result too few, once it is more than one text."""
        for text in texts:
            if text.startswith("/"):
                pass_gate(Path(text))
        return texts[1:] or texts

    @bentoml.task
    def later(self, gate: str) -> str:
        pass_gate(Path(gate))
        return "done later"

    @bentoml.api
    def process(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "session": os.getsid(0),
            "group": os.getpgid(0),
            "folder": os.getcwd(),
            "path": sys.path[0],
            "frozen": gc.get_freeze_count(),
            "threads": threading.active_count(),
            "marked_by": marker.IMPORTED_BY,
            "greeting": os.environ.get("GREETING"),
            "deployment": os.environ.get("BENTOCLOUD_DEPLOYMENT_URL"),
            "metrics": os.environ.get("PROMETHEUS_MULTIPROC_DIR"),
        }

    @bentoml.on_shutdown
    def end(self) -> None:
        Path("ended").touch()


@bentoml.service(threads=4)
class Patient(Methods):
    """With BentoML's deadline of a minute."""


@bentoml.service(threads=4, traffic={"timeout": 1.0})
class Hurried(Methods):
    """With one of a second."""


@bentoml.service(traffic={"max_concurrency": 4, "timeout": 60}, workers=2, path_prefix="/v3")
class Limited:
    """Four calls in two workers."""

    @bentoml.api
    def hold(self, gate: str) -> str:
        pass_gate(Path(gate))
        return "held"
