"""How many replicas an endpoint is worth: by what runs and waits now, and by the most that did so lately.

Up is decided by the load of this moment, down by the highest of a whole window, so that a pause between two bursts
costs no replica. What is there at present is in neither: dividing by it is how others oscillated (ray 18925, 33416).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

HEAD_ROOM = 0.7  # of a replica's target is used when the count is right (Knative's and Baseten's default)
TARGET = 16  # calls at once that a replica is meant for where neither service nor owner say
BUCKETS = 6  # of a window
DOWN = 0.5  # the largest share of the replicas that go within a window


def worth(load: int, target: int) -> int:
    """Replicas for `load` calls that run or wait, when each is meant for `target` at once; 0 for none."""
    # A single call must not ask for two replicas of one slot: head-room counts from the second replica on.
    return 0 if load == 0 else max(1, math.ceil(load / (target * HEAD_ROOM) - 1e-9) if load > target else 1)


@dataclass(slots=True)
class Window:
    """The highest value of the last `seconds`, in BUCKETS steps: a value is kept at least that long."""

    seconds: float
    marks: list[tuple[int, int]] = field(default_factory=list)  # (bucket, highest), oldest first, at most BUCKETS + 1

    def _bucket(self, now: float) -> int:
        return int(now * BUCKETS / max(self.seconds, 1e-3))

    def note(self, value: int, now: float) -> None:
        bucket = self._bucket(now)
        if self.marks and self.marks[-1][0] == bucket:
            if value > self.marks[-1][1]:
                self.marks[-1] = (bucket, value)
            return
        self.marks.append((bucket, value))
        if len(self.marks) > BUCKETS + 1:
            del self.marks[0]

    def highest(self, now: float) -> int:
        oldest = self._bucket(now) - BUCKETS
        return max((value for bucket, value in self.marks if bucket >= oldest), default=0)


def may_go(there: int, gone: int) -> int:
    """How many of the replicas may still be stopped in this window, when `gone` of them were already."""
    return max(0, max(1, int((there + gone) * DOWN)) - gone)
