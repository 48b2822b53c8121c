"""One call at a time, readiness and liveness of its own, a service that it depends on."""

from __future__ import annotations

import asyncio
import time

import bentoml


@bentoml.service
class Inner:
    @bentoml.api
    def twice(self, a: int) -> int:
        return 2 * a


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
    async def sleep(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @bentoml.api
    def four_times(self, a: int) -> int:
        return 2 * int(self.inner.twice(a))

    @bentoml.api
    async def six_times(self, a: int) -> int:
        return 3 * int(await self.inner.to_async.twice(a=a))

    @bentoml.api
    def set_alive(self, alive: bool) -> None:
        self.alive = alive
