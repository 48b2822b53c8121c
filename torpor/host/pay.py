"""What batching pays: how large a batch may be before its items become dearer, found out by measuring.

On a CPU a batch of short rows is several times cheaper for each item, and one of long rows can be dearer than its items
one by one (MiniLM at 127 tokens on one core: 31.6 a second alone, 27.5 in batches of 32). Which it is depends on the
model, the rows and the machine.
"""

from __future__ import annotations

ENOUGH = 3  # batches of a level, before it is compared
DEARER = 1.1  # times the cheapest smaller level: above it, a level is not worth its wait
WEIGHT = 0.25  # of a new measurement
PROBE = 64  # every so many batches one is as large as it can be: what is sent changes


class Pay:
    """Time by item and level of batch sizes: 1, 2 to 3, 4 to 7, 8 to 15, and so on."""

    def __init__(self, max_batch_size: int) -> None:
        self._max = max_batch_size
        self._cost: dict[int, float] = {}  # seconds an item, by level
        self._seen: dict[int, int] = {}
        self._batches = 0

    def learn(self, items: int, seconds: float) -> None:
        """A batch of that many items took that long."""
        if items < 1:
            return
        level, cost = items.bit_length(), seconds / items
        self._cost[level] = cost + (1 - WEIGHT) * (self._cost.get(level, cost) - cost)
        self._seen[level] = self._seen.get(level, 0) + 1

    def most(self) -> int:
        """How many items the next batch may hold."""
        self._batches += 1
        if self._batches % PROBE == 0:
            return self._max
        cheapest = float("inf")
        for level in sorted(self._cost):
            if self._seen[level] < ENOUGH:
                continue
            if self._cost[level] > cheapest * DEARER:
                return min(self._max, (1 << (level - 1)) - 1)  # all of the level below
            cheapest = min(cheapest, self._cost[level])
        return self._max
