"""One call at a time, readiness and liveness of its own, arguments, a service that it depends on."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import bentoml

GIVEN: Any = bentoml.use_arguments()  # of the bentofile


def witness(what: str) -> None:
    with Path(os.environ["WITNESS"]).open("a") as lines:
        lines.write(f"{what}\n")


@bentoml.service(envs=[{"name": "DEPTH", "value": "2"}])
class Inner:
    def __init__(self) -> None:
        self.started = ["init"]

    @bentoml.on_startup
    async def start(self) -> None:
        await asyncio.sleep(0)
        self.started.append("startup")

    @bentoml.on_shutdown
    def stop(self) -> None:
        witness("inner shutdown")

    @bentoml.on_deployment
    @staticmethod
    def deployed() -> None:
        witness("inner deployment")

    @bentoml.api
    def twice(self, a: int) -> int:
        return 2 * a

    @bentoml.api
    def state(self) -> list[str]:
        return [*self.started, os.environ["DEPTH"]]

    @bentoml.api
    def divide(self, a: int, b: int) -> float:
        return a / b


@bentoml.service(traffic={"max_concurrency": 1}, metrics={"enabled": True})
class Narrow:
    inner = bentoml.depends(Inner)

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.alive = True

    async def __is_ready__(self) -> bool:
        return time.monotonic() > self.begun + 0.5

    def __is_alive__(self) -> bool:
        return self.alive

    @bentoml.api
    def hold(self, path: str) -> str:
        """Runs from when `path`.begun exists until `path` does."""
        Path(path + ".begun").touch()
        while not Path(path).exists():
            time.sleep(0.01)
        return "held"

    @bentoml.api
    def four_times(self, a: int) -> int:
        return 2 * int(self.inner.twice(a))

    @bentoml.api
    async def six_times(self, a: int) -> int:
        return 3 * int(await self.inner.to_async.twice(a=a))

    @bentoml.api
    def inner_state(self) -> list[str]:
        return list(self.inner.state())

    @bentoml.api
    def inner_breaks(self) -> float:
        return float(self.inner.divide(1, 0))

    @bentoml.api
    def given(self) -> str:
        return str(GIVEN.word)

    @bentoml.api
    def set_alive(self, alive: bool) -> None:
        self.alive = alive
