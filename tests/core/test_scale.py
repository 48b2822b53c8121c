"""Scaling: the rule's values, and whole hours of traffic of the kinds that made others oscillate."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest

from router.core import events as ev
from router.core.scale import Window, may_go, worth
from tests.core.play import Play, starts, stops
from tests.core.simulate import Load, Seen, Simulation

TRACE = Path(__file__).parent / "traces" / "azure_llm_conv.csv.gz"


@pytest.mark.parametrize(
    ("load", "target", "replicas"),
    [(0, 1, 0), (1, 1, 1), (2, 1, 3), (7, 1, 10), (1, 16, 1), (16, 16, 1), (17, 16, 2), (112, 16, 10), (113, 16, 11)],
)
def test_a_load_is_worth_replicas_with_head_room_from_the_second_on(load: int, target: int, replicas: int) -> None:
    assert worth(load, target) == replicas


def test_a_window_remembers_its_highest_for_at_least_its_length() -> None:
    window = Window(60)
    window.note(5, 100.0)
    window.note(1, 130.0)
    assert window.highest(160.0) == 5
    assert window.highest(171.0) == 1
    assert window.highest(500.0) == 0


@pytest.mark.parametrize(("there", "gone", "allowed"), [(2, 0, 1), (1, 1, 0), (8, 0, 4), (5, 3, 1), (4, 4, 0)])
def test_at_most_half_of_the_replicas_go_within_a_window(there: int, gone: int, allowed: int) -> None:
    assert may_go(there, gone) == allowed


def simulate(loads: list[Load], until: float, **settings: Any) -> Seen:
    play = Play()
    play.deployed(**settings)
    return Simulation(play).run(loads, until)


def calls(every: float, takes: float, start: float, end: float) -> list[Load]:
    return [Load(start + i * every, takes) for i in range(int((end - start) / every))]


def test_trap_25_one_call_at_zero_starts_one_replica_however_many_are_allowed() -> None:
    seen = simulate([Load(0, 1)], 60, concurrency=4, max_replicas=64)
    assert len(seen.starts) == 1


def test_trap_25_a_steady_load_settles_and_then_nothing_starts_or_stops() -> None:
    seen = simulate(calls(0.1, 1.0, 0, 3600), 3600, concurrency=4, max_replicas=16)
    settled = [at for at in (*seen.starts, *seen.stops) if at > 300]
    assert settled == []
    assert 3 <= seen.counts[-1][1] <= 5  # ten in flight, four a replica, less head-room


def test_trap_25_bursts_with_pauses_shorter_than_the_window_cost_no_replica() -> None:
    bursts = [load for k in range(60) for load in calls(0.05, 1.0, k * 60, k * 60 + 20)]
    seen = simulate(bursts, 3600, concurrency=4, max_replicas=16, scale_window=60)
    assert [at for at in (*seen.starts, *seen.stops) if 300 < at < 3560] == []


def test_trap_25_falling_load_takes_half_of_the_replicas_a_window_and_the_last_has_its_own_time() -> None:
    seen = simulate(calls(0.05, 1.0, 0, 120), 1200, concurrency=2, max_replicas=16, idle_after=10, idle_after_last=400)
    most = max(count for _, count in seen.counts)
    assert most >= 8
    for at, count in seen.counts:
        later = [c for t, c in seen.counts if at < t <= at + 59]
        assert min(later, default=count) >= count - max(1, count / 2), "more than half went within a window"
    assert seen.counts[-1][1] == 0
    assert seen.stops[-1] >= 120 + 400
    assert seen.stops[-2] < seen.stops[-1] - 60


def test_the_trace_of_a_public_service_is_served_without_a_loss_and_without_oscillation() -> None:
    with gzip.open(TRACE, "rt") as rows:
        loads = [
            Load(float(row["seconds"]), int(row["context_tokens"]) / 5000 + int(row["generated_tokens"]) / 50)
            for row in csv.DictReader(rows)
        ]
    seen = simulate(loads, 3700, concurrency=8, max_replicas=32)
    assert seen.refused == {}
    assert sum(map(len, seen.waits.values())) == len(loads)
    waits = sorted(seen.waits["e"])
    assert waits[len(waits) // 2] == 0
    assert waits[int(len(waits) * 0.99)] <= 3.0  # a start takes 2 s here
    # A replica that goes and is started again at once would be oscillation.
    again = [at for at in seen.starts for gone in seen.stops if gone < at <= gone + 5]
    assert len(again) <= 5, again
    assert len(seen.starts) <= 40


def test_trap_3_what_starts_is_never_scaled_down() -> None:
    play = Play()
    play.deployed(concurrency=1, max_replicas=3, idle_after=1)
    first, second, third = starts([effect for i in range(3) for effect in play.want(f"c{i}")])
    play.tell(ev.Ready(first))
    for _ in range(3):
        play.tell(ev.Settled(first)) if play.schedule.replicas[first].in_flight else None
    assert stops(play.later(500)) in ([], [first])
    assert {play.state(second), play.state(third)} == {"starting"}


def test_min_replicas_are_started_and_kept() -> None:
    play = Play()
    effects = play.deployed(min_replicas=2, max_replicas=3, idle_after=1)
    ready = starts(effects)
    assert len(ready) == 2
    for replica in ready:
        play.tell(ev.Ready(replica))
    assert stops(play.later(1000)) == []
    assert len(starts(play.tell(ev.Exited(ready[0], -9)))) == 1
