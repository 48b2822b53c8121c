"""The nine laws of a replica's life, as far as the shell keeps them; `tests/core/test_laws.py` has the core's half."""

from __future__ import annotations

import anyio
import pytest

from router.proxy.calls import Lease, Outcome
from tests.shell.fakes.stage import FakeCall, Stage, idle, play
from torpor.errors import Conflict, ShuttingDown


def test_law_1_a_slot_is_chosen_and_reserved_before_want_returns() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        await stage.awake()
        first, second = stage.want(), stage.want()  # nothing else ran between the two
        assert first.lease is not None
        assert second.waits
        first.settle()
        assert second.lease is not None, "the freed slot goes to who waits, before settle returns"

    play(scenario)


def test_law_1_a_call_made_within_a_grant_cannot_take_the_slot_that_was_granted() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        stage.launcher.hold_start()
        within: list[FakeCall] = []
        first, second = stage.want(), stage.want()
        first.then = lambda: within.append(stage.want())
        stage.launcher.release()
        await first.answer()
        assert second.waits
        assert within[0].waits
        first.settle()
        assert second.lease is not None
        assert within[0].waits

    play(scenario)


def test_law_2_a_replica_is_stopped_only_after_its_last_lease_is_settled() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(idle_after=5)
        calls = [stage.want() for _ in range(3)]
        for call in calls:
            await call.answer()
        for call in calls:
            await anyio.sleep(100)
            assert stage.launcher.stopped == []
            call.settle()
        await anyio.sleep(5.1)
        assert [replica for replica, _ in stage.launcher.stopped] == ["e-1-1"]

    play(scenario)


def test_law_2_a_lease_settled_twice_is_refused_and_the_count_stays_right() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        call = stage.want()
        lease = await call.answer()
        call.settle()
        with pytest.raises(KeyError, match="settled twice"):
            stage.engine.settle(lease, Outcome.DONE)
        assert stage.want().lease is not None
        assert stage.want().waits, "one slot, not two"

    play(scenario)


def test_law_3_an_idle_view_does_not_put_to_sleep_what_was_called_since() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        await stage.awake()
        read = stage.engine.schedule.lines["e"].in_flight()
        call = stage.want()
        assert read == 0
        with pytest.raises(Conflict):
            await stage.engine.sleep("e")
        assert stage.launcher.stopped == []
        call.settle()

    play(scenario)


def test_law_4_fifty_callers_share_one_start() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        calls = [stage.want() for _ in range(50)]
        await idle()
        stage.launcher.release()
        for call in calls:
            await call.answer()
        assert stage.launcher.started == ["e-1-1"]

    play(scenario)


def test_law_4_a_caller_who_leaves_does_not_cancel_the_start() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        only = stage.want()
        await idle()
        stage.engine.leave(only)
        stage.launcher.release()
        await idle()
        assert stage.states() == ["ready"]
        assert only.waits, "who left is told nothing"
        assert stage.want().lease is not None, "who comes next finds it warm"

    play(scenario)


def test_law_5_every_waiter_is_woken_exactly_once_by_ready_by_exit_and_by_sleep() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        calls = [stage.want() for _ in range(5)]  # a FakeCall fails when it is answered twice
        await idle()
        stage.launcher.release()
        for call in calls:
            await call.answer()
            call.settle()
        stage.launcher.kill("e-1-1")
        stage.launcher.hold_ready()
        calls = [stage.want() for _ in range(5)]
        await idle()
        stage.launcher.kill("e-1-2")
        assert {call.error.code if call.error else None for call in calls} == {"start_failed"}
        slept: list[int] = []

        async def sleeper(number: int) -> None:
            await stage.engine.sleep("e")
            slept.append(number)

        stage.launcher.release()
        await anyio.sleep(2)
        await stage.awake()
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(sleeper, number)
        assert sorted(slept) == [0, 1, 2, 3, 4]
        stage.nothing_is_held()

    play(scenario)


def test_law_6_a_start_that_loses_to_a_stop_is_still_reaped() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        call = stage.want()
        await idle()

        async def sleep() -> None:
            await stage.engine.sleep("e", force=True)
            assert stage.launcher.alive == {}

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep)
            await idle()
            assert call.error is not None
            assert stage.states() == ["stopping"]
            stage.launcher.release()  # the process comes to be after its stop was decided
        assert [replica for replica, _ in stage.launcher.stopped] == ["e-1-1"]
        assert stage.states() == []
        stage.nothing_is_held()

    play(scenario)


def test_law_6_a_stop_overtakes_a_start_that_has_not_come_to_the_launcher() -> None:
    async def scenario(stage: Stage) -> None:
        for told_at_once in (True, False):
            stage.deployed()
            stage.planning = anyio.Event()  # such as an environment that has to be made again
            call = stage.want()
            if not told_at_once:
                await idle()
            await stage.engine.sleep("e", force=True)
            assert call.error is not None
            assert (stage.launcher.started, stage.states()) == ([], [])
            stage.planning.set()
            await idle()
            assert (stage.launcher.alive, stage.states()) == ({}, [])
            stage.nothing_is_held()

    play(scenario)


def test_law_7_a_grant_to_a_caller_who_has_just_left_is_settled_at_once() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(idle_after=5)
        stage.launcher.hold_start()
        first, second = stage.want(), stage.want()
        first.then = lambda: stage.engine.leave(second)  # both grants are decided; the second is not performed yet
        stage.launcher.release()
        await first.answer()
        first.settle()
        assert second.waits
        stage.nothing_is_held()
        await anyio.sleep(5.1)
        assert stage.states() == [], "no slot was lost: it went to sleep"

    play(scenario)


def test_law_8_a_stop_that_has_begun_is_seen_through_when_the_engine_ends() -> None:
    async def scenario(stage: Stage) -> None:
        own = Stage()
        own.kind = "Stubborn"
        async with anyio.create_task_group() as tasks:
            await tasks.start(own.engine.run)
            own.deployed(idle_after=1, stop_within=30)
            await own.awake()
            await anyio.sleep(2)
            assert own.states() == ["stopping"]
            tasks.cancel_scope.cancel()
        assert own.launcher.stopped == [("e-1-1", 30)]
        assert own.launcher.alive == {}, "it did not hear TERM, and was killed"
        assert anyio.current_time() == pytest.approx(31, abs=0.01)

    play(scenario)


def test_law_9_shutdown_admits_nobody_refuses_the_queue_drains_and_stops() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed("run", drain_within=50, concurrency=1)
        stage.deployed("start")
        running = stage.want("run")
        await running.answer()
        queued = stage.want("run")
        stage.launcher.hold_start()
        parked = stage.want("start")
        await idle()
        over = anyio.Event()

        async def shut_down() -> None:
            await stage.engine.shut_down()
            over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shut_down)
            await idle()
            late = stage.want("run")
            assert [type(call.error) for call in (queued, parked, late)] == [ShuttingDown] * 3
            stage.launcher.release()
            await anyio.sleep(10)
            assert list(stage.launcher.alive) == ["run-1-1"]
            assert not over.is_set(), "what runs is waited for"
            running.settle()
        assert stage.launcher.alive == {}
        stage.nothing_is_held()

    play(scenario)


def test_law_9_what_does_not_drain_in_time_is_cut_off() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(drain_within=50)
        endless = stage.want()
        lease = await endless.answer()
        await stage.engine.shut_down()
        assert anyio.current_time() == pytest.approx(50, abs=0.01)
        assert stage.launcher.alive == {}
        assert isinstance(lease, Lease)
        endless.settle(Outcome.DIED)
        stage.nothing_is_held()

    play(scenario)
