"""Canaries that are simulated: the healthy stay, the broken and the slow go, and nothing is decided by a few calls."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import pytest

from router.core.verdict import (
    KEEP,
    PROMOTE,
    ROLL_BACK,
    Bounds,
    Counts,
    Verdict,
    Window,
    beyond,
    judge,
    quantile,
)
from router.proxy.tally import ANSWER
from torpor.errors import BadRequest

NOTHING = (0,) * (len(ANSWER) + 1)
Draw = Callable[[random.Random], float]
SAMPLES = 20_000  # calls that stand for all of a kind


def usual(draw: random.Random) -> float:
    """Seconds of a call: a median of 20 ms, a p95 of 46 ms."""
    return 0.02 * math.exp(draw.gauss(0, 0.5))


def two_humps(draw: random.Random) -> float:
    """The worst case of a p95: a twentieth of the calls takes ten times as long."""
    return usual(draw) * (10 if draw.random() < 0.05 else 1)


@cache
def times(factor: float) -> Draw:
    return lambda draw: usual(draw) * factor


@cache
def buckets(takes: Draw) -> list[int]:
    draw = random.Random(7)
    return [bisect_left(ANSWER, takes(draw)) for _ in range(SAMPLES)]


@dataclass
class Side:
    """A line whose calls fail and take time by chance."""

    fails: float
    takes: Draw
    calls: int = 0
    errors: int = 0
    answers: list[int] = field(default_factory=lambda: list(NOTHING))

    def __post_init__(self) -> None:
        self.buckets = buckets(self.takes)

    def call(self, draw: random.Random, calls: int) -> None:
        self.calls += calls
        self.errors += sum(draw.random() < self.fails for _ in range(calls))
        for bucket in draw.choices(self.buckets, k=calls):
            self.answers[bucket] += 1

    def counts(self) -> Counts:
        return Counts(self.calls, self.errors, tuple(self.answers))


def played(live: Side, canary: Side, bounds: Bounds, seconds: float, seed: int) -> list[tuple[float, Verdict]]:
    """A look every 5 s at 18 calls to the live revision and 2 to the canary; ends with what is not "keep"."""
    draw, window, now = random.Random(seed), Window(bounds, ANSWER), 0.0
    told = [(now, window.look(now, live.counts(), canary.counts()))]
    while now < seconds and told[-1][1].what == KEEP:
        now += 5.0
        live.call(draw, 18)
        canary.call(draw, 2)
        told.append((now, window.look(now, live.counts(), canary.counts())))
    return told


@pytest.mark.parametrize("takes", [usual, two_humps])
@pytest.mark.parametrize("fails", [0.0, 0.01, 0.1])
def test_a_healthy_canary_is_not_rolled_back_in_long_runs(fails: float, takes: Draw) -> None:
    """Five runs of two hours, 1,440 looks each, at 20 calls in 5 s."""
    for seed in range(5):
        told = played(Side(fails, takes), Side(fails, takes), Bounds(), 7200, seed)
        assert told[-1][1] == Verdict(KEEP)


def test_one_error_in_fifty_calls_says_nothing() -> None:
    verdict = judge(Bounds(), ANSWER, Counts(450, 0, NOTHING), Counts(50, 1, NOTHING), True)
    assert verdict == Verdict(KEEP)


@pytest.mark.parametrize("seed", range(10))
def test_a_canary_with_a_fifth_of_errors_is_rolled_back_within_two_windows(seed: int) -> None:
    told = played(Side(0.01, usual), Side(0.2, usual), Bounds(), 600, seed)
    at, verdict = told[-1]
    assert verdict.what == ROLL_BACK
    assert verdict.reason.startswith("errors in ")
    assert at <= 600


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("factor", [3.0, 30.0])
def test_a_slow_canary_is_rolled_back_within_two_windows(factor: float, seed: int) -> None:
    told = played(Side(0.01, usual), Side(0.01, times(factor)), Bounds(), 600, seed)
    at, verdict = told[-1]
    assert verdict.what == ROLL_BACK
    assert "against the live one's" in verdict.reason
    assert at <= 600


def test_what_is_slower_by_a_moment_stays_however_many_times_that_is() -> None:
    def quick(draw: random.Random) -> float:
        return 0.0008 * draw.random()

    told = played(Side(0, quick), Side(0, lambda draw: 3 * quick(draw)), Bounds(), 3600, 1)
    assert {verdict.what for _, verdict in told} == {KEEP}


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_canary_is_promoted_after_a_whole_window_and_not_before(seed: int) -> None:
    bounds = Bounds(promote=True)
    told = played(Side(0.01, usual), Side(0.01, usual), bounds, 3600, seed)
    at, verdict = told[-1]
    assert verdict.what == PROMOTE
    assert at >= bounds.window
    assert {each.what for _, each in told[:-1]} == {KEEP}


def test_a_canary_that_was_not_clean_in_the_window_is_promoted_only_once_that_has_passed() -> None:
    live, canary, draw = Side(0, usual), Side(0, usual), random.Random(3)
    window, now = Window(Bounds(promote=True), ANSWER), 0.0
    told: list[tuple[float, str]] = []
    while now < 700:
        told.append((now, window.look(now, live.counts(), canary.counts()).what))
        now += 5.0
        live.call(draw, 18)
        canary.call(draw, 4)
        canary.errors += 100 <= now < 200 and now % 15 == 0  # seldom enough that it is no certain fault
    assert canary.errors == 7  # of 240 calls in a window, where 4 are allowed
    assert next(at for at, what in told if what == PROMOTE) > 400
    assert ROLL_BACK not in {what for _, what in told}


def test_nobody_is_promoted_without_calls_to_compare() -> None:
    calls = Counts(500, 0, (0, 0, 0, 500, *NOTHING[4:]))
    bounds = Bounds(promote=True)
    assert judge(bounds, ANSWER, Counts(49, 0, NOTHING), calls, True) == Verdict(KEEP)
    assert judge(bounds, ANSWER, calls, Counts(49, 0, NOTHING), True) == Verdict(KEEP)
    assert judge(bounds, ANSWER, calls, calls, False) == Verdict(KEEP)
    assert judge(bounds, ANSWER, calls, calls, True).what == PROMOTE


def test_a_canary_that_gets_all_calls_is_rolled_back_for_its_errors() -> None:
    assert judge(Bounds(), ANSWER, Counts(0, 0, NOTHING), Counts(60, 30, NOTHING), False).what == ROLL_BACK


def test_an_error_of_long_ago_is_forgotten() -> None:
    window = Window(Bounds(window=10), ANSWER)
    quick = (0, 100, *NOTHING[2:])
    window.look(0, Counts(0, 0, NOTHING), Counts(0, 0, NOTHING))
    before = Counts(100, 20, quick)
    assert window.look(1, Counts(100, 0, quick), before).what == ROLL_BACK
    assert window.look(12, Counts(300, 0, quick), Counts(300, 20, quick)).what == KEEP


def test_quantiles_and_shares_are_read_within_a_bucket() -> None:
    counts = (0, 0, 0, 0, 0, 0, 100, *NOTHING[7:])  # between 50 and 100 ms
    assert quantile(0.5, ANSWER, counts) == pytest.approx(0.075)
    assert beyond(0.075, ANSWER, counts) == pytest.approx(0.5)
    assert beyond(0.2, ANSWER, counts) == 0
    last = (*NOTHING[:-1], 10)
    assert quantile(0.95, ANSWER, last) == ANSWER[-1]
    assert beyond(1e6, ANSWER, last) == 1


@pytest.mark.parametrize(
    ("watch", "says"),
    [
        ({"windows": 3}, "unknown keys: windows"),
        ({"window": 0}, "watch.window=0 is out of bounds"),
        ({"window": math.nan}, "watch.window=nan"),
        ({"errors": True}, "watch.errors=True"),
        ({"errors": 1.5}, "watch.errors=1.5"),
        ({"latency": 0.5}, "watch.latency=0.5"),
        ({"least": 2.5}, "watch.least=2.5"),
        ({"promote": "yes"}, "watch.promote='yes'"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(watch: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        Bounds.of(watch)


def test_bounds_that_are_not_named_are_the_usual_ones() -> None:
    assert Bounds.of({"window": 60, "promote": True}) == Bounds(60, 0.02, 1.5, 50, True)
