"""The engine from the owner's side: trials, revisions, wake, sleep, removal, the end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from router.core.settings import Settings
from router.shell.plan import Plan
from tests.shell.fakes.stage import Stage, idle, plan, play
from torpor.errors import Conflict, EndpointNotFound, QueueTimeout, ShuttingDown, StartFailed, StartTimeout


async def tried(stage: Stage, tried_plan: Plan, settings: Settings | None = None) -> Any:
    """What a trial ends with: the replica's id, or the error."""
    try:
        return await stage.engine.prove(tried_plan, settings or Settings())
    except (StartFailed, StartTimeout, Conflict, ShuttingDown) as error:
        return error


def test_a_trial_that_is_ready_becomes_the_live_replica_without_a_second_start() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await tried(stage, plan("e", 1))
        assert stage.launcher.said(replica)["schema"] == {"name": "Good"}
        assert isinstance(stage.want().error, EndpointNotFound), "it is not live before it is written"
        stage.deployed()
        call = stage.want()
        assert call.lease is not None
        assert (call.lease.replica, call.lease.cold) == (replica, False)
        assert stage.launcher.started == [replica]

    play(scenario)


def test_a_trial_that_fails_raises_its_last_lines_and_leaves_the_live_revision_alone() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        live = await stage.awake()
        error = await tried(stage, plan("e", 2, "Broken"))
        assert isinstance(error, StartFailed)
        assert error.detail == {"log": ["    1 / 0"]}
        await idle()
        assert list(stage.launcher.alive) == [live]
        assert await stage.awake() == live
        assert stage.want().error is None, "a failed trial is no failed start of the live revision"

    play(scenario)


def test_a_trial_that_is_never_ready_ends_with_start_within() -> None:
    async def scenario(stage: Stage) -> None:
        error = await tried(stage, plan("e", 1, "Slow"), Settings(start_within=7))
        assert isinstance(error, StartTimeout)
        await idle()
        assert (stage.launcher.alive, stage.engine.schedule.lines) == ({}, {})

    play(scenario)


def test_an_abandoned_trial_is_stopped_whether_it_is_ready_or_not() -> None:
    async def scenario(stage: Stage) -> None:
        ready = await tried(stage, plan("e", 1))
        stage.engine.abandon("e")
        await idle()
        assert [replica for replica, _ in stage.launcher.stopped] == [ready]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tried, stage, plan("e", 1, "Slow"))
            await idle()
            stage.engine.abandon("e")
            await idle()
            tasks.cancel_scope.cancel()
        await idle()
        assert (stage.launcher.alive, stage.engine.schedule.lines) == ({}, {})
        stage.nothing_is_held()

    play(scenario)


def test_two_trials_of_one_endpoint_at_once_are_refused() -> None:
    async def scenario(stage: Stage) -> None:
        async with anyio.create_task_group() as tasks:
            stage.launcher.hold_start()
            tasks.start_soon(tried, stage, plan("e", 1))
            await idle()
            assert isinstance(await tried(stage, plan("e", 1)), Conflict)
            stage.launcher.release()
        assert len(stage.launcher.started) == 1

    play(scenario)


def test_what_is_parked_for_the_old_revision_is_served_by_the_new_one_while_the_old_drains() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        running = stage.want()
        await running.answer()
        parked = stage.want()
        await tried(stage, plan("e", 2), Settings(concurrency=1))
        stage.deployed(revision=2, concurrency=1)
        assert (await parked.answer()).replica == "e-2-2"
        assert stage.states() == ["draining", "ready"]
        running.settle()
        await idle()
        assert list(stage.launcher.alive) == ["e-2-2"]

    play(scenario)


def test_wake_returns_when_a_replica_is_ready_and_holds_no_slot_of_it() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        await stage.engine.wake("e")
        assert stage.states() == ["ready"]
        assert stage.want().lease is not None
        await anyio.sleep(1)

    play(scenario)


def test_wake_raises_what_a_call_would_be_refused_with() -> None:
    async def scenario(stage: Stage) -> None:
        with pytest.raises(EndpointNotFound):
            await stage.engine.wake("nobody")
        stage.kind = "Broken"
        stage.deployed()
        with pytest.raises(StartFailed, match="ZeroDivisionError"):
            await stage.engine.wake("e")
        stage.nothing_is_held()

    play(scenario)


def test_sleep_returns_when_the_process_is_gone_and_at_once_when_none_runs() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        await stage.engine.sleep("e")
        await stage.awake()
        stage.launcher.hold_stop()
        ends: list[float] = []

        async def sleeper() -> None:
            await stage.engine.sleep("e")
            ends.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleeper)
            tasks.start_soon(sleeper)
            await anyio.sleep(5)
            assert ends == []
            stage.launcher.release()
        assert ends == [5.0, 5.0]
        stage.nothing_is_held()

    play(scenario)


def test_sleep_is_refused_while_calls_run_or_wait_and_a_forced_one_cuts_them_off_after_drain_within() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(drain_within=20, concurrency=1)
        running = stage.want()
        await running.answer()
        waiting = stage.want()
        with pytest.raises(Conflict, match="1 calls or tasks running and 1 waiting"):
            await stage.engine.sleep("e")
        stage.nothing_waits_for_sleep()
        await stage.engine.sleep("e", force=True)
        assert isinstance(waiting.error, QueueTimeout)
        assert anyio.current_time() == pytest.approx(20, abs=0.01)
        running.settle()  # its connection broke
        stage.nothing_is_held()

    play(scenario)


def test_sleep_is_refused_while_a_deploy_is_on_trial_and_does_not_wait_for_it() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        await tried(stage, plan("e", 2))
        with pytest.raises(Conflict, match="being deployed"):
            await stage.engine.sleep("e")
        stage.engine.abandon("e")
        await stage.engine.sleep("e")

    play(scenario)


def test_removal_refuses_what_waits_and_returns_when_what_runs_has_ended() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        running = stage.want()
        await running.answer()
        waiting = stage.want()
        removed = anyio.Event()

        async def remove() -> None:
            await stage.engine.remove("e")
            removed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(remove)
            await anyio.sleep(3)
            assert isinstance(waiting.error, EndpointNotFound)
            assert not removed.is_set()
            running.settle()
        assert (stage.launcher.alive, stage.engine.schedule.lines) == ({}, {})
        with pytest.raises(EndpointNotFound):
            await stage.engine.remove("e")
        stage.nothing_is_held()

    play(scenario)


def test_a_trial_during_the_shutdown_is_refused_and_one_under_way_is_stopped() -> None:
    async def scenario(stage: Stage) -> None:
        ends: list[Any] = []

        async def deploy() -> None:
            ends.append(await tried(stage, plan("e", 1, "Slow")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deploy)
            await idle()
            await stage.engine.shut_down()
        assert isinstance(ends[0], StartFailed)
        assert stage.launcher.alive == {}
        assert isinstance(await tried(stage, plan("f", 1)), ShuttingDown)
        stage.nothing_is_held()

    play(scenario)
