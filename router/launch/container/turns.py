"""Starts of containers in turn: the imports of one keep a processor busy, and many at once would all be late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.launch.machine import cores

AT_MOST = 3.0  # seconds of a turn: one that hangs keeps nobody waiting for longer


class Turns:
    """As many at once as there are processors, in the order in which they come."""

    def __init__(self, at_once: int | None = None, at_most: float = AT_MOST) -> None:
        self._free = asyncio.Semaphore(at_once or max(2, cores()))
        self._at_most = at_most

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """What runs within it has begun in its turn; the next one begins when it has ended, or has taken too long."""
        await self._free.acquire()
        over = asyncio.get_running_loop().call_later(self._at_most, self._free.release)
        try:
            yield
        finally:
            if over.when() > asyncio.get_running_loop().time():
                over.cancel()
                self._free.release()
