"""What the proxy counts of its calls: plain integers in fixed lists, read by whoever renders them."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange

# Upper bounds in seconds. A warm call takes milliseconds, a cold one up to minutes; the router itself, microseconds.
ANSWER: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ROUTER: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)

LEFT: Final = 499  # the code of a call whose caller left before the answer began (nginx has made it known)


class Histogram:
    """Counts by bucket, each only its own; the last is of what is above every bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class Tally:
    """One endpoint's calls since the router's start or, if that was later, the endpoint's."""

    __slots__ = ("barred", "broken", "codes", "cold", "parked", "warm")

    def __init__(self) -> None:
        self.codes: defaultdict[int, int] = defaultdict(int)  # by status
        self.warm = Histogram(ANSWER)  # seconds to the first byte of an answer
        self.cold = Histogram(ANSWER)  # the same of calls that waited for a start
        self.parked = Histogram(ANSWER)  # seconds of those that had to wait
        self.broken = 0  # answers that ended before their end
        self.barred = 0  # calls and quiet reads that no token let in; their codes are among the unmatched


class Tallies:
    """By endpoint. A call is counted once: when its answer begins, when it is refused, or when its caller leaves."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.endpoints: dict[str, Tally] = {}
        self.unmatched: defaultdict[int, int] = defaultdict(int)  # refused before it was known for whom, by status
        self.router = Histogram(ROUTER)  # seconds from a call's coming to its forwarding, less those it was parked

    def of(self, endpoint: str) -> Tally:
        tally = self.endpoints.get(endpoint)
        if tally is None:
            tally = self.endpoints[endpoint] = Tally()
        return tally

    def forget(self, endpoint: str) -> None:
        """The endpoint was removed; one of the same name counts anew."""
        self.endpoints.pop(endpoint, None)

    def answered(self, exchange: Exchange, status: int) -> None:
        """The first byte of a replica's answer is on its way. Every call comes by here, so `add` is spelt out."""
        target, lease = exchange.target, exchange.lease
        if target is None or lease is None:
            return
        tally = self.endpoints.get(target.endpoint) or self.of(target.endpoint)
        tally.codes[status] += 1
        router = exchange.router
        if lease.parked:
            tally.parked.add(lease.parked)
            router -= lease.parked
        took = self._time() - exchange.started
        answers = tally.cold if lease.cold else tally.warm
        answers.counts[bisect_left(ANSWER, took)] += 1
        answers.total += took
        routers = self.router
        routers.counts[bisect_left(ROUTER, router)] += 1
        routers.total += router

    def refused(self, exchange: Exchange, status: int) -> None:
        """The router itself answered with an error."""
        if exchange.target is not None:
            self.of(exchange.target.endpoint).codes[status] += 1
        else:
            self.unmatched[status] += 1

    def left(self, exchange: Exchange) -> None:
        """The caller has gone before anything was answered."""
        if exchange.target is not None:
            self.of(exchange.target.endpoint).codes[LEFT] += 1

    def broke(self, exchange: Exchange) -> None:
        """The answer ended before its end."""
        if exchange.target is not None:
            self.of(exchange.target.endpoint).broken += 1
