"""What is due when: one instant a key, with cheap postponing."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")


class Deadlines(Generic[K]):
    """A heap whose entries may be early: `_at` is the truth, so postponing a deadline touches the dict only.

    A warm call postpones its replica's idle deadline; that must not cost a heap operation.
    """

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._queued: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0

    def set(self, key: K, at: float) -> None:
        """The key is due at `at`; an earlier instant of the same key is forgotten."""
        self._at[key] = at
        queued = self._queued.get(key)
        if queued is None or at < queued:
            self._push(key, at)

    def clear(self, key: K) -> None:
        self._at.pop(key, None)

    def next(self) -> float | None:
        """The earliest instant, or None. Forgets what was cleared and moves what was postponed."""
        self._settle()
        return self._heap[0][0] if self._heap else None

    def bound(self) -> float:
        """An instant before which nothing is due, at no cost: the earliest may have been postponed or cleared."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> Iterator[K]:
        """Takes out and yields every key whose instant has come, earliest first."""
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._queued[key]
            del self._at[key]
            yield key

    def _push(self, key: K, at: float) -> None:
        self._serial += 1  # ties are in order of insertion, and keys are never compared
        heapq.heappush(self._heap, (at, self._serial, key))
        self._queued[key] = at

    def _settle(self) -> None:
        while self._heap:
            at, _, key = self._heap[0]
            if self._queued.get(key) != at:  # a later `set` pushed an earlier entry
                heapq.heappop(self._heap)
                continue
            truth = self._at.get(key)
            if truth == at:
                return
            heapq.heappop(self._heap)
            del self._queued[key]
            if truth is not None:
                self._push(key, truth)
