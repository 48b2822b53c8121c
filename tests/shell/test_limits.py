"""Calls above an endpoint's rate or quota: refused before queue and start, and counted once each."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.shell.fakes.stage import FakeCall, Stage, play
from tests.shell.test_meters import page_of, scraped, value
from torpor.errors import RateLimited


def refused(calls: list[FakeCall]) -> list[FakeCall]:
    return [call for call in calls if isinstance(call.error, RateLimited)]


@pytest.mark.parametrize("settings", [{"rate": 0.01, "burst": 3}, {"quota": 3}])
def test_a_refused_call_is_answered_at_once_and_starts_nothing(settings: dict[str, Any]) -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(idle_after=5, sleep="deep", max_queue=2, **settings)
        stage.launcher.hold_start()
        calls = [stage.want() for _ in range(9)]
        assert refused(calls) == calls[3:], "before the queue: what it has no room for is the third"
        assert [call.error and call.error.code for call in calls[:3]] == [None, None, "queue_full"]
        stage.launcher.release()
        for call in calls[:2]:
            await call.answer()
            call.settle()
        await anyio.sleep(10)
        assert (stage.states(), len(stage.launcher.started)) == ([], 1)
        assert refused([stage.want() for _ in range(20)])[0].error is not None
        await anyio.sleep(1)
        assert (stage.states(), len(stage.launcher.started)) == ([], 1), "a refused call wakes nobody"

    play(scenario)


def test_a_refused_call_keeps_no_replica_awake() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(idle_after=60, quota=1, sleep="deep")
        await stage.awake()
        for _ in range(5):
            await anyio.sleep(20)
            assert refused([stage.want()])
        assert stage.states() == []

    play(scenario)


def test_the_bucket_fills_by_the_engines_clock() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(rate=0.5, burst=1)
        await stage.awake()
        early = stage.want()
        wait = early.error.retry_after if early.error else None
        assert wait is not None
        assert wait == pytest.approx(2.0, abs=0.1)
        await anyio.sleep(wait)
        await stage.awake()

    play(scenario)


def test_a_call_that_is_replayed_counts_once() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(quota=2)
        call = stage.want()
        for _ in range(2):
            lease = await call.answer()
            stage.launcher.kill(lease.replica)
            call.lease, call._answered = None, anyio.Event()
            stage.engine.replay(call, lease, call.target)
        await call.answer()
        call.settle()
        assert len(stage.launcher.started) == 3
        assert [bool(refused([stage.want()])) for _ in range(2)] == [False, True]

    play(scenario)


def test_the_owners_wake_counts_for_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(quota=1)
        for _ in range(3):
            await stage.engine.wake("e")
        assert not refused([stage.want()])

    play(scenario)


def test_calls_of_a_variant_are_calls_of_its_endpoint() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed("e", quota=3)
        stage.deployed("e~canary", quota=50)
        stage.deployed("other")
        calls = [stage.want(line) for line in ("e", "e~canary", "e~canary", "e~canary", "e", "other")]
        assert refused(calls) == calls[3:5]
        await stage.engine.remove("e~canary")
        stage.deployed("e", 2, quota=4)
        assert [bool(refused([stage.want()])) for _ in range(2)] == [False, True]

    play(scenario)


def test_a_copy_for_a_shadow_counts_for_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed("e", quota=2)
        stage.deployed("e~shadow")
        for count in range(6):
            copy = FakeCall(stage, "e~shadow")
            stage.engine.copy(copy, "e~shadow")
            assert (await copy.answer()).replica.startswith("e~shadow")
            copy.settle()
            assert bool(refused([stage.want()])) == (count >= 2)
        assert refused([stage.want("e~shadow")]), "who calls it by its own address is a caller"

    play(scenario)


def test_what_the_limits_refused_is_told_by_endpoint() -> None:
    metrics, engine = page_of("e", "f")
    stage = Stage()
    stage.engine = engine
    for name, settings in (("e", {"rate": 1}), ("f", {"quota": 2})):
        stage.deployed(name, 2, **settings)
        assert len([stage.want(name) for _ in range(5)]) == 5
        metrics.tallies.of(name)
    metrics.tallies.of("f").barred += 7
    families = scraped(metrics)
    by = ("torpor_calls_refused", "torpor_calls_refused_total")
    found = {
        (name, what): value(families, *by, endpoint=name, by=what)
        for name in "ef"
        for what in ("rate", "quota", "token")
    }
    assert found == {
        ("e", "rate"): 4, ("e", "quota"): 0, ("e", "token"): 0, ("f", "rate"): 0, ("f", "quota"): 3, ("f", "token"): 7,
    }  # fmt: skip
