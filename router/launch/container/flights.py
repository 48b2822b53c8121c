"""Work that is done once for all who ask for it while it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

Tell = Callable[[str], None]


class Flights:
    """By what is made. A caller who leaves stops nothing; when all of them have left, the work is cancelled."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Flight] = {}

    async def join(self, key: str, work: Callable[[Tell], Awaitable[str]], tell: Tell) -> str:
        """What `work` returns or raises. `tell` hears its lines, also those of before the caller came."""
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = _Flight(work)
        for line in flight.told:
            tell(line)
        flight.callers.append(tell)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.callers.remove(tell)
            if not flight.callers or flight.task.done():
                if self._under_way.get(key) is flight:
                    del self._under_way[key]
                with anyio.CancelScope(shield=True):
                    await flight.end()


class _Flight:
    def __init__(self, work: Callable[[Tell], Awaitable[str]]) -> None:
        self.told: list[str] = []
        self.callers: list[Tell] = []
        self.task = asyncio.ensure_future(work(self._tell))

    def _tell(self, line: str) -> None:
        self.told.append(line)
        for tell in self.callers:
            tell(line)

    async def end(self) -> None:
        """Returns once the work has let go of what it held."""
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.exception()  # every caller was told
