"""What a fault may do to callers: which errors, of which endpoints, and for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

LINGER = 2.0  # seconds after a fault in which a process that was killed may still be going, and be met by a call
AFTERMATH = 8.0  # seconds in which a start that failed puts the next ones off: 1, 2 and 4 s when it failed three times

# What a caller meets, beside the codes of torpor's errors.
UNREACHABLE = "unreachable"  # nobody took the connection
CUT = "cut"  # the connection broke before the end of the answer
# `start_failed` by the reason that it gives: a service that raised, a process that was killed, one that was not forked.
RAISED, KILLED, UNFORKED = "start_raised", "start_killed", "start_unforked"
REASONS = {"told to fail": RAISED, "was killed by SIG": KILLED, "a forking process is gone": UNFORKED}
CODES = frozenset(("replica_died", "bad_answer", "start_failed", "queue_timeout"))  # that some fault may cause

DIED = frozenset(("replica_died", CUT))
FAILED = frozenset(REASONS.values())
# What a kind of fault may cause. A replica that leaks, forks or is deaf to TERM is nothing that a caller may notice.
CAUSES: dict[str, frozenset[str]] = {
    "a replica is killed": DIED | {KILLED},
    "a fork-server is killed": DIED | {KILLED, UNFORKED},
    "a template is killed": DIED | {KILLED, UNFORKED},
    "the platform is killed": frozenset((UNREACHABLE, CUT)),
    "a replica ends itself": DIED,
    "a replica answers garbage": frozenset(("bad_answer", CUT)),
    "a replica closes its socket": DIED,
    "a replica is deaf to TERM": frozenset(),
    "a replica leaks": frozenset(),
    "a replica forks": frozenset(),
    "starts fail": frozenset((RAISED,)),
    "an endpoint is put to sleep": frozenset(),
    "an endpoint is forced to sleep": frozenset(("queue_timeout",)),  # who waits is refused; what runs is not cut off
}


def met(code: str, error: str) -> str:
    """What CAUSES calls an error of torpor's; a start that failed for another reason than these has no cause."""
    if code != "start_failed":
        return code
    return next((what for words, what in REASONS.items() if words in error), code)


@dataclass
class Fault:
    """One that was struck: `at` and `until` are when it began and ended (monotonic)."""

    kind: str
    at: float
    until: float = math.inf
    endpoints: set[str] | None = field(default_factory=set)  # that it touched; None: all of them

    def on(self, endpoint: str) -> str:
        """Says whom it touches, before it does."""
        if self.endpoints is not None:
            self.endpoints.add(endpoint)
        return endpoint

    def explains(self, endpoint: str, what: str, begun: float, ended: float) -> bool:
        """Whether a call of the endpoint, from `begun` to `ended`, may have met `what` because of it."""
        if what not in CAUSES[self.kind] or (self.endpoints is not None and endpoint not in self.endpoints):
            return False
        return begun <= self.until + (AFTERMATH if what in FAILED else LINGER) and self.at <= ended

    def told(self, now: float) -> str:
        whom = "all endpoints" if self.endpoints is None else ", ".join(sorted(self.endpoints)) or "nobody"
        return f"{self.kind} ({whom}, {now - self.at:.1f} s before)"


Strike = Callable[[Fault], None]
