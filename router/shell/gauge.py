"""Measures what runs, so that the schedule decides about memory by what is taken and not by what was declared."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Protocol

import anyio

from router.core.events import Held, Measured
from router.shell.engine import Engine
from torpor.errors import TorporError

log = logging.getLogger("torpor.gauge")

EVERY = 1.0  # seconds, while something runs, or there are graphics cards
SOON = 0.1  # seconds, while a card's memory is awaited
SHARE = 0.05  # of the time is spent measuring, at most


class Processes(Protocol):
    """What a launcher says of its processes."""

    def pids(self) -> dict[str, tuple[int, ...]]:
        """Of replicas and templates, by id."""
        ...

    def own_pids(self) -> list[int]:
        """Of the launcher itself."""
        ...


class Running(Processes, Protocol):
    """And of those that have no process here to look at."""

    async def unseen(self) -> dict[str, int]:
        """Bytes, by id."""
        ...


class Gauge:
    """`measure` gives a process's bytes, None when it is gone; `cards` what the graphics cards hold, by UUID."""

    def __init__(
        self,
        engine: Engine,
        processes: Running,
        measure: Callable[[int], int | None],
        cards: Callable[[], dict[str, Held]] | None = None,
    ) -> None:
        self._engine = engine
        self._processes = processes
        self._measure = measure
        self._cards = cards if engine.schedule.cards.all else None

    async def run(self) -> None:
        """Until cancelled. Nothing is read while nothing runs, but for cards, which others use too."""
        while True:
            took = 0.0
            schedule = self._engine.schedule
            if schedule.replicas or schedule.shelf.templates or self._cards is not None:
                began = anyio.current_time()
                await self.look()
                took = anyio.current_time() - began
            await anyio.sleep(max(SOON if schedule.cards.going() else EVERY, took / SHARE))

    async def look(self) -> None:
        """One measurement. Reading a process's maps takes a millisecond and more: not on the event loop."""
        by_id = self._processes.pids()
        own = [os.getpid(), *self._processes.own_pids()]
        sizes, platform = await anyio.to_thread.run_sync(self._read, by_id, own)
        try:
            sizes |= await self._processes.unseen()
        except TorporError as error:  # their engine is not there now; what was measured last holds
            log.warning("what runs in containers is not measured: %s", str(error).partition("\n")[0])
        held = None if self._cards is None else await anyio.to_thread.run_sync(self._cards)
        self._engine.tell(Measured(sizes, platform, held))

    def _read(self, by_id: dict[str, tuple[int, ...]], own: list[int]) -> tuple[dict[str, int], int]:
        sizes = {name: size for name, pids in by_id.items() if (size := self._of(pids))}
        return sizes, self._of(own)

    def _of(self, pids: Iterable[int]) -> int:
        return sum(self._measure(pid) or 0 for pid in pids)
