"""What batching pays: how large a batch may be before its items become dearer, found out by measuring.

On a CPU a batch of short rows is several times cheaper for each item, and one of long rows can be dearer than its items
one by one (MiniLM at 127 tokens on one core: 31.6 a second alone, 27.5 in batches of 32). Which it is depends on the
model, the rows and the machine.
"""

from __future__ import annotations

from collections import deque

ENOUGH = 6  # batches of a level, before it is compared
FRESH = 32  # batches: older measurements are of other rows, or of a busier machine; a level without is tried again
DEARER = 1.1  # times the cheapest level: above it, a level is not worth its wait
KEPT = 4 * FRESH  # the same for waiting, which is tried less often, because smaller batches are the price of knowing
CHEAPER = 1.05  # times an item's price in the larger batch: below it, a batch is not worth waiting for


class Pay:
    """Time by item and level of batch sizes: 1, 2 to 3, 4 to 7, 8 to 15, and so on.

    In doubt batches are large: a size that is refused for no reason costs half of the throughput, one that is used
    for no reason a tenth.
    """

    def __init__(self, max_batch_size: int) -> None:
        self._max = max_batch_size
        self._batches = 0
        self._kept: dict[int, deque[tuple[int, float]]] = {}  # by level: number of the batch, seconds an item

    def learn(self, items: int, seconds: float) -> None:
        """A batch of that many items took that long."""
        if items < 1:
            return
        self._batches += 1
        kept = self._kept.setdefault(items.bit_length(), deque(maxlen=ENOUGH))
        kept.append((self._batches, seconds / items))

    def most(self) -> int:
        """How many items the next batch may hold: no level that is dearer than all that are as cheap as any."""
        costs = {level: _middle(kept) for level, kept in self._kept.items() if self._is_known(kept)}
        if not costs:
            return self._max
        limit = min(costs.values()) * DEARER
        good = max(level for level, cost in costs.items() if cost <= limit)
        dear = [level for level in costs if level > good]
        return min(self._max, (1 << (min(dear) - 1)) - 1) if dear else self._max

    def is_worth(self, items: int, more: int) -> bool:
        """Whether it pays to wait until there are `more` items instead of those.

        Where the batch of those is not known, no: so it will be. Where only that of more is not, yes.
        """
        have, could = min(items, self._max), min(more, self.most())
        now, then = self._kept.get(have.bit_length()), self._kept.get(could.bit_length())
        if could <= have or now is None or not self._is_known(now, KEPT):
            return False
        return then is None or not self._is_known(then, KEPT) or _middle(then) * CHEAPER < _middle(now)

    def _is_known(self, kept: deque[tuple[int, float]], fresh: int = FRESH) -> bool:
        return len(kept) == ENOUGH and kept[0][0] > self._batches - fresh


def _middle(kept: deque[tuple[int, float]]) -> float:
    return sorted(cost for _, cost in kept)[len(kept) // 2]
