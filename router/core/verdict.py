"""What a canary's calls say of it, against the live revision's: keep it, roll it back, promote it.

Two questions, each answered by a one-sided test, so that few calls do not decide anything by chance:

- Errors: is the canary's share above the live one's by more than `errors`? The difference of two proportions less that
  margin, over its standard error, both with one success and one failure added to each side (Agresti and Caffo, "Simple
  and effective confidence intervals for proportions and differences of proportions", The American Statistician 54,
  2000): z = (c - l - errors) / sqrt(c (1 - c) / (m + 2) + l (1 - l) / (n + 2)), c = (x + 1) / (m + 2) of the canary's
  x errors in m calls, l likewise of the live one's n calls.
- Latency: are more than 5 percent of the canary's calls slower than `latency` times the live one's p95? With a share s
  of m calls, z = (s - 0.05) / sqrt(0.05 * 0.95 * (1 / m + 1 / n)), the standard error of a share beyond a quantile that
  was itself estimated from n calls. Both shares are read from histograms of the same bounds by the same interpolation,
  so that what interpolation gets wrong it gets wrong on both sides.

A canary is rolled back where z is above SURE, which chance alone reaches once in about 4,300 looks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from torpor.errors import BadRequest

SURE: Final = 3.5  # standard errors
TAIL: Final = 0.05  # of the calls are above the p95
LATER: Final = 0.005  # seconds: a p95 that is later by less is no reason, whatever its multiple
LOOKS: Final = 60  # counts that are remembered of one window
WINDOW_MAX: Final = 86400.0

KEEP, ROLL_BACK, PROMOTE = "keep", "roll back", "promote"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rule's `watch` says."""

    window: float = 300.0  # seconds that are looked at
    errors: float = 0.02  # the most by which the share of errors may be above the live one's
    latency: float = 1.5  # the most times the live one's p95
    least: int = 50  # calls of the canary before anything is judged, and of each side before a promotion
    promote: bool = False  # after a clean window

    @classmethod
    def of(cls, watch: Mapping[str, Any]) -> Bounds:
        """Raises BadRequest with the first fault."""
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(watch) - set(known)):
            raise BadRequest(f"`watch` has unknown keys: {', '.join(unknown)}\nit takes {', '.join(known)}")
        bounds = (("window", 1.0, WINDOW_MAX), ("errors", 0.0, 1.0), ("latency", 1.0, 1000.0), ("least", 1, 1_000_000))
        for name, low, high in bounds:
            value = watch.get(name, low)
            kinds = (int,) if name == "least" else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
                raise BadRequest(f"watch.{name}={value!r} is out of bounds\nuse a number from {low:g} to {high:g}")
        if not isinstance(watch.get("promote", False), bool):
            raise BadRequest(f"watch.promote={watch['promote']!r} says neither yes nor no\nuse true or false")
        return cls(**watch)


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls of one line. `answers`: those that waited for no start, by bucket of the seconds to their first byte."""

    calls: int
    errors: int  # 5xx, and answers that broke off
    answers: tuple[int, ...]

    def since(self, before: Counts) -> Counts:
        answers = tuple(now - then for now, then in zip(self.answers, before.answers, strict=True))
        return Counts(self.calls - before.calls, self.errors - before.errors, answers)

    @property
    def share(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`what`: KEEP, ROLL_BACK or PROMOTE."""

    what: str
    reason: str = ""


class Window:
    """The last `bounds.window` seconds of a canary and the live revision; `seconds`: the histograms' upper bounds."""

    def __init__(self, bounds: Bounds, seconds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._seconds = seconds
        self._seen: deque[tuple[float, Counts, Counts]] = deque()

    def look(self, now: float, live: Counts, canary: Counts) -> Verdict:
        """`live`, `canary`: all that was counted until now. The first look is where the first window begins."""
        seen, window = self._seen, self.bounds.window
        while len(seen) > 1 and seen[1][0] <= now - window:
            seen.popleft()
        if not seen or now - seen[-1][0] >= window / LOOKS:
            seen.append((now, live, canary))
        began, live_then, canary_then = seen[0]
        full = now - began >= window
        return judge(self.bounds, self._seconds, live.since(live_then), canary.since(canary_then), full)


def judge(bounds: Bounds, seconds: tuple[float, ...], live: Counts, canary: Counts, full: bool) -> Verdict:
    """1 too few calls, 2 errors, 3 latency, 4 promotion. `full`: the counts are of a whole window."""
    if canary.calls < bounds.least:  # 1
        return Verdict(KEEP)
    enough = live.calls >= bounds.least
    if errors_beyond(canary, live if enough else None, bounds.errors) > SURE:  # 2
        beside = f"{percent(live.share)} of {live.calls}" if enough else "too few to compare with"
        return Verdict(
            ROLL_BACK,
            f"errors in {percent(canary.share)} of {canary.calls} calls, the live one's: {beside} "
            f"(at most {percent(bounds.errors)} more)",
        )
    slow = slower(bounds, seconds, live, canary)
    if slow is not None and slow.z > SURE:  # 3
        return Verdict(
            ROLL_BACK,
            f"{percent(slow.share)} of {slow.calls} calls took more than {slow.limit * 1000:.3g} ms, "
            f"p95 {slow.p95 * 1000:.3g} ms against the live one's {slow.live_p95 * 1000:.3g} ms "
            f"(at most {bounds.latency:g} times)",
        )
    within = canary.share <= live.share + bounds.errors and slow is not None and slow.p95 <= slow.limit
    if bounds.promote and full and enough and within:  # 4
        return Verdict(PROMOTE, f"{canary.calls} calls in {bounds.window:g} s were as the live one's")
    return Verdict(KEEP)


def errors_beyond(canary: Counts, live: Counts | None, margin: float) -> float:
    """z of the canary's errors above the live one's and the margin; None: the live one is taken to have no errors."""
    ours, ours_of = (canary.errors + 1) / (canary.calls + 2), canary.calls + 2
    variance = ours * (1 - ours) / ours_of
    theirs = 0.0
    if live is not None:
        theirs = (live.errors + 1) / (live.calls + 2)
        variance += theirs * (1 - theirs) / (live.calls + 2)
    return (ours - theirs - margin) / math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Slow:
    """How the canary's latency compares. Seconds."""

    z: float
    share: float  # of its calls beyond the limit
    calls: int
    limit: float
    p95: float
    live_p95: float


def slower(bounds: Bounds, seconds: tuple[float, ...], live: Counts, canary: Counts) -> Slow | None:
    """None where either has too few answers."""
    theirs, ours = sum(live.answers), sum(canary.answers)
    if min(theirs, ours) < bounds.least:
        return None
    live_p95 = quantile(1 - TAIL, seconds, live.answers)
    limit = max(live_p95 * bounds.latency, live_p95 + LATER)
    share = beyond(limit, seconds, canary.answers)
    z = (share - TAIL) / math.sqrt(TAIL * (1 - TAIL) * (1 / ours + 1 / theirs))
    return Slow(z, share, ours, limit, quantile(1 - TAIL, seconds, canary.answers), live_p95)


def quantile(share: float, seconds: tuple[float, ...], counts: tuple[int, ...]) -> float:
    """Below which a share of what was counted lies, taken to be spread evenly in its bucket."""
    wanted, below, low = share * sum(counts), 0, 0.0
    for high, count in zip(seconds, counts, strict=False):
        if count and below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return seconds[-1]


def beyond(limit: float, seconds: tuple[float, ...], counts: tuple[int, ...]) -> float:
    """The share of what was counted that lies above a limit; above the last bound everything does."""
    above, low = float(counts[-1]), 0.0
    for high, count in zip(seconds, counts, strict=False):
        above += count * min(1.0, max(0.0, (high - limit) / (high - low)))
        low = high
    return above / sum(counts)


def percent(share: float) -> str:
    return f"{share * 100:.3g}%"
