"""Pauses through the engine: each replica's pause, resume and stop come one after the other."""

from __future__ import annotations

import anyio
import pytest

from router.core.events import Measured
from tests.shell.fakes.stage import Stage, idle, play
from torpor.errors import EngineFailed, EngineUnreachable

MB = 1 << 20


async def frozen(stage: Stage, name: str = "e") -> str:
    stage.deployed(name, sleep="pause")
    replica = await stage.awake(name)
    await stage.engine.sleep(name)
    return replica


def test_an_endpoint_sleeps_frozen_and_its_next_call_has_the_same_replica() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=5)
        replica = await stage.awake()
        await anyio.sleep(5.1)
        assert (stage.states(), stage.launcher.frozen, stage.launcher.stopped) == (["paused"], {replica}, [])
        call = stage.want()
        lease = await call.answer()
        assert (lease.replica, lease.cold, lease.phases) == (replica, True, {"resume": 0.02})
        assert (stage.launcher.started, stage.launcher.frozen) == ([replica], set())
        call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_the_owners_sleep_returns_when_it_is_frozen() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause")
        replica = await stage.awake()
        stage.launcher.hold_pause()
        returned = anyio.Event()

        async def sleep() -> None:
            await stage.engine.sleep("e")
            returned.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep)
            await idle()
            assert (stage.states(), stage.launcher.frozen, returned.is_set()) == (["paused"], set(), False)
            stage.launcher.release()
        assert stage.launcher.frozen == {replica}

    play(scenario)


def test_a_call_that_comes_during_a_pause_is_served_after_it() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=5)
        replica = await stage.awake()
        stage.launcher.hold_pause()
        await anyio.sleep(5.1)
        call = stage.want()
        await idle()
        assert (stage.launcher.paused, stage.launcher.resumed, call.waits) == ([replica], [], True)
        stage.launcher.release()
        assert (await call.answer()).replica == replica
        assert (stage.launcher.resumed, stage.launcher.started) == ([replica], [replica])
        call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_many_turns_in_a_row_come_in_their_order() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=0)
        replica = await stage.awake()
        for _ in range(20):
            call = stage.want()
            assert (await call.answer()).replica == replica
            call.settle()
        await anyio.sleep(1)
        assert (stage.launcher.frozen, stage.launcher.started) == ({replica}, [replica])
        assert len(stage.launcher.paused) == len(stage.launcher.resumed) + 1

    play(scenario)


def test_a_stop_during_a_pause_waits_for_it() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=5)
        replica = await stage.awake()
        stage.launcher.hold_pause()
        await anyio.sleep(5.1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.engine.remove, "e")
            await idle()
            assert (stage.states(), stage.launcher.stopped) == (["stopping"], [])
            stage.launcher.release()
        assert ([name for name, _ in stage.launcher.stopped], stage.launcher.alive) == ([replica], {})
        stage.nothing_is_held()

    play(scenario)


def test_a_stop_during_a_resume_waits_for_it_and_its_callers_are_refused() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await frozen(stage)
        stage.launcher.hold_resume()
        call = stage.want()
        await idle()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: stage.engine.sleep("e", force=True))
            await idle()
            assert (call.error is not None, stage.states(), stage.launcher.stopped) == (True, ["stopping"], [])
            stage.launcher.release()
        assert ([name for name, _ in stage.launcher.stopped], stage.launcher.alive) == ([replica], {})
        stage.nothing_is_held()

    play(scenario)


def test_what_is_stopped_before_its_resume_has_begun_is_not_resumed() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=5)
        replica = await stage.awake()
        stage.launcher.hold_pause()
        await anyio.sleep(5.1)
        call = stage.want()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: stage.engine.sleep("e", force=True))
            await idle()
            stage.launcher.release()
        assert (stage.launcher.resumed, stage.launcher.paused) == ([], [replica])
        assert (call.error is not None, stage.launcher.alive) == (True, {})

    play(scenario)


@pytest.mark.parametrize("fault", [EngineFailed("no freezer\nuse another"), ValueError("a defect")], ids=repr)
def test_a_pause_that_fails_ends_the_replica_and_the_endpoint_sleeps_and_wakes(fault: Exception) -> None:
    async def scenario(stage: Stage) -> None:
        stage.launcher.unpaused = fault
        replica = await frozen(stage)
        await idle()
        assert (stage.states(), [name for name, _ in stage.launcher.stopped]) == ([], [replica])
        assert [note.kind for note in stage.notes][-3:] == ["paused", "lost", "ended"]
        assert await stage.awake() != replica
        stage.nothing_is_held()

    play(scenario)


def test_a_pause_that_fails_under_a_waiting_call_gives_it_another_replica() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=5)
        replica = await stage.awake()
        stage.launcher.hold_pause()
        stage.launcher.unpaused = EngineFailed("no freezer\nuse another")
        await anyio.sleep(5.1)
        call = stage.want()
        await idle()
        stage.launcher.release()
        assert (await call.answer()).replica != replica
        await idle()
        assert (stage.launcher.resumed, list(stage.launcher.alive)) == ([], ["e-1-2"])
        call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_a_resume_that_fails_gives_its_callers_another_replica() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await frozen(stage)
        stage.launcher.unresumed = EngineUnreachable("nobody answers\nstart it")
        call = stage.want()
        assert (await call.answer()).replica != replica
        await idle()
        assert [name for name, _ in stage.launcher.stopped] == [replica]
        call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_a_replica_killed_while_it_is_frozen_leaves_its_endpoint_asleep() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await frozen(stage)
        stage.launcher.kill(replica)
        assert stage.states() == []
        assert [note.kind for note in stage.notes][-1] == "died"
        assert await stage.awake() != replica
        stage.nothing_is_held()

    play(scenario)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_replica_killed_while_it_is_being_frozen_is_neither_resumed_nor_stopped(wanted: bool) -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", idle_after=5)
        replica = await stage.awake()
        stage.launcher.hold_pause()
        await anyio.sleep(5.1)
        call = stage.want() if wanted else None
        await idle()
        stage.launcher.kill(replica)
        stage.launcher.release()
        await idle()
        assert (stage.launcher.resumed, stage.launcher.stopped) == ([], [])
        if call is not None:
            assert (await call.answer()).replica != replica
            call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_a_replica_killed_while_it_is_being_resumed_gives_its_callers_another_one() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await frozen(stage)
        stage.launcher.hold_resume()
        call = stage.want()
        await idle()
        stage.launcher.kill(replica)
        stage.launcher.release()
        assert (await call.answer()).replica != replica
        assert stage.launcher.stopped == []
        call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_a_caller_who_leaves_a_resume_does_not_cancel_it() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await frozen(stage)
        stage.launcher.hold_resume()
        call = stage.want()
        await idle()
        stage.engine.leave(call)
        stage.launcher.release()
        await idle()
        assert (stage.states(), stage.launcher.resumed) == (["ready"], [replica])
        stage.nothing_is_held()

    play(scenario)


def test_a_resume_that_takes_too_long_is_given_up_for_a_start() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(sleep="pause", start_within=10)
        replica = await stage.awake()
        await stage.engine.sleep("e")
        stage.launcher.hold_resume()
        call = stage.want()
        lease = await call.answer()
        assert lease.replica != replica
        assert 10 <= lease.parked < 11
        stage.launcher.release()
        await idle()
        assert [name for name, _ in stage.launcher.stopped] == [replica]
        call.settle()
        stage.nothing_is_held()

    play(scenario)


def test_the_routers_end_stops_what_is_frozen() -> None:
    async def scenario(stage: Stage) -> None:
        replica = await frozen(stage)
        await stage.engine.shut_down()
        assert ([name for name, _ in stage.launcher.stopped], stage.launcher.alive) == ([replica], {})

    play(scenario)


def test_memory_that_runs_short_takes_what_is_frozen() -> None:
    async def scenario(stage: Stage) -> None:
        stage.engine.schedule.room.limit = 500 * MB
        asleep = await frozen(stage)
        stage.deployed("other")
        replica = await stage.awake("other")
        stage.engine.tell(Measured({asleep: 60 * MB, replica: 460 * MB}))
        await idle()
        assert (stage.states(), stage.states("other")) == ([], ["ready"])
        assert list(stage.launcher.alive) == [replica]

    play(scenario)
