"""A service with a deadline of a second, a path prefix, hooks, variables of its own, and another service inside."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import bentoml


def witness(what: str) -> None:
    with Path(os.environ["WITNESS"]).open("a") as lines:
        lines.write(f"{what}\n")


@bentoml.service(path_prefix="/v9", traffic={"timeout": 1}, threads=4, envs=[{"name": "MOOD", "value": "calm"}])
class Hurried:
    def __init__(self) -> None:
        self.log: list[str] = ["init"]

    @bentoml.on_deployment
    @staticmethod
    def deployed() -> None:
        witness("deployment")

    @bentoml.on_startup
    def first(self) -> None:
        self.log.append("startup")

    @bentoml.on_startup
    async def then(self) -> None:
        await asyncio.sleep(0)
        self.log.append("async startup")

    @bentoml.on_shutdown
    def last(self) -> None:
        witness("shutdown")

    @bentoml.on_shutdown
    async def last_too(self) -> None:
        await asyncio.sleep(0)
        witness("async shutdown")

    @bentoml.api
    def started(self) -> list[str]:
        return sorted(self.log)

    @bentoml.api
    def mood(self) -> str:
        return os.environ["MOOD"]

    @bentoml.api
    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    @bentoml.api
    async def sleep_async(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @bentoml.api
    async def slow_stream(self, before: float = 0.0) -> AsyncGenerator[str, None]:
        """Its answer begins in time; its end is later than the deadline."""
        await asyncio.sleep(before)
        for number in range(3):
            yield f"{number}"
            await asyncio.sleep(0.5)

    @bentoml.api
    async def stubborn(self, seconds: float) -> str:
        """Goes on when it is cancelled."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
        return "done"

    @bentoml.api
    def unreachable(self) -> Path:
        return Path("/nowhere/at/all")

    @bentoml.api(batchable=True)
    def slow_batch(self, seconds: list[float]) -> list[float]:
        time.sleep(max(seconds))
        return seconds

    @bentoml.api
    def file(self, path: Path, seconds: float = 0.0) -> int:
        """Not in the lean lane."""
        time.sleep(seconds)
        return len(path.read_bytes())

    @bentoml.api
    def keyed(self, **kwargs: Any) -> list[str]:
        return sorted(kwargs)
