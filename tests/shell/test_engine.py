"""The engine from the callers' side: calls, starts that they cause, starts that fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import anyio
import anyio.lowlevel
import pytest

from router.core import events as ev
from router.core.catalog import Registered
from router.core.settings import Settings
from router.proxy.calls import Lease, Outcome, Target
from tests.shell.fakes.stage import FakeCall, Stage, idle, play
from torpor.errors import EndpointNotFound, ModelNotFound, StartFailed, StartTimeout, TorporError


def test_an_endpoint_sleeps_after_300_idle_seconds_and_not_before() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        replica = await stage.awake()
        await anyio.sleep(200)
        assert await stage.awake() == replica, "the second call was warm"
        await anyio.sleep(299.9)
        assert stage.states() == ["ready"]
        await anyio.sleep(0.2)
        assert (stage.states(), stage.launcher.stopped) == ([], [(replica, 10.0)])
        assert [note.kind for note in stage.notes] == ["starting", "woke", "slept", "kept", "ended"]

    play(scenario)


def test_a_cold_call_is_told_how_long_it_was_parked_and_the_phases_of_the_start() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_ready()
        call = stage.want()
        await anyio.sleep(2.5)
        stage.launcher.release()
        lease = await call.answer()
        assert lease == Lease("e-1-1", "/run/e-1-1.sock", True, 2.5, {"fork": 0.01, "load": 0.02})
        warm = stage.want()
        assert warm.lease == Lease("e-1-1", "/run/e-1-1.sock", False, 0.0, {})

    play(scenario)


def test_a_parked_call_whose_patience_ends_is_refused_and_the_start_goes_on() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        hasty, patient = stage.want(queue_within=3), stage.want()
        await anyio.sleep(3.1)
        assert (hasty.error and hasty.error.code, patient.waits) == ("queue_timeout", True)
        stage.launcher.release()
        await patient.answer()
        assert stage.launcher.started == ["e-1-1"]

    play(scenario)


def test_a_failed_start_refuses_the_parked_with_its_last_lines_and_is_put_off() -> None:
    async def scenario(stage: Stage) -> None:
        stage.kind = "Broken"
        stage.deployed()
        calls = [stage.want() for _ in range(3)]
        for call in calls:
            with pytest.raises(StartFailed, match="ZeroDivisionError") as raised:
                await call.answer()
            assert (raised.value.detail, raised.value.retry_after) == ({"log": ["    1 / 0"]}, 1.0)
        await idle()
        assert stage.states() == [], "what failed is reaped"
        await anyio.sleep(0.75)
        early = stage.want()
        assert early.error is not None
        assert early.error.retry_after == pytest.approx(0.25)
        assert len(stage.launcher.started) == 1
        await anyio.sleep(0.3)
        stage.kind = "Good"
        stage.engine.efforts.plans.clear()  # the revision was mended where it lies
        await stage.awake()
        stage.nothing_is_held()

    play(scenario)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (ModelNotFound("bento b:1 needs the model m, which is not in the model store\nexport it first"), "the model m"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_plan_that_cannot_be_made_is_the_callers_answer(reason: Exception, said: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.unplanned = reason
        stage.deployed()
        with pytest.raises(StartFailed, match=said):
            await stage.want().answer()
        assert stage.launcher.started == []
        assert stage.states() == []
        stage.unplanned = None
        await anyio.sleep(1.1)
        await stage.awake()

    play(scenario)


def test_a_launcher_that_cannot_start_anything_leaves_no_replica_behind() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.refusal = RuntimeError("the pid table is full")
        with pytest.raises(StartFailed, match="the pid table is full"):
            await stage.want().answer()
        await idle()
        assert stage.states() == []
        stage.nothing_is_held()

    play(scenario)


def test_a_replica_that_is_never_ready_is_stopped_when_start_within_ends() -> None:
    async def scenario(stage: Stage) -> None:
        stage.kind = "Slow"
        stage.deployed(start_within=60, stop_within=2)
        with pytest.raises(StartTimeout, match=r"not ready after 60\.0 s"):
            await stage.want().answer()
        await idle()
        assert (stage.launcher.stopped, stage.launcher.alive) == ([("e-1-1", 2)], {})
        assert anyio.current_time() == pytest.approx(60, abs=0.01)

    play(scenario)


def test_the_plan_of_a_revision_is_made_once() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(idle_after=1)
        made: list[int] = []
        make = stage.plan

        async def counted(endpoint: str, revision: int) -> object:
            made.append(revision)
            return await make(endpoint, revision)

        stage.engine.efforts.plan_of = counted  # type: ignore[assignment]  # the same shape, counted
        for _ in range(3):
            await stage.awake()
            await anyio.sleep(2)
        stage.deployed(revision=2)
        await stage.awake()
        assert (len(stage.launcher.started), made) == (4, [1, 2])

    play(scenario)


def test_a_replica_that_dies_in_mid_call_is_replaced_and_its_call_replayed_ahead_of_the_others() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(concurrency=1)
        call = stage.want()
        lease = await call.answer()
        stage.launcher.hold_ready()
        later = stage.want()
        stage.launcher.kill(lease.replica)
        call.lease = None
        stage.engine.replay(call, lease, call.target)
        await idle()
        stage.launcher.release()
        call._answered = anyio.Event()
        assert call.lease is not None
        assert call.lease.replica == "e-1-2"
        assert later.waits
        call.settle()
        assert later.lease is not None
        assert [note.kind for note in stage.notes] == ["starting", "woke", "died", "starting", "woke"]

    play(scenario)


def test_an_unfinished_task_keeps_its_replica_awake() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed(idle_after=5)
        replica = await stage.awake()
        stage.launcher.busy(replica, 1)
        await anyio.sleep(1000)
        assert stage.states() == ["ready"]
        stage.launcher.busy(replica, 0)
        await anyio.sleep(5.1)
        assert stage.states() == []

    play(scenario)


def test_a_call_whose_grant_raises_does_not_take_the_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        first, second = stage.want(), stage.want()
        first.then = lambda: 1 / 0  # type: ignore[assignment]
        stage.launcher.release()
        await second.answer()
        second.settle()
        assert "division by zero" in caplog.text

    play(scenario)


def test_a_bad_event_within_a_step_does_not_stop_those_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        call, behind = stage.want(), list[FakeCall]()

        def in_the_grant() -> None:
            stage.engine.tell(ev.Ready("nobody"))
            behind.append(stage.want())

        call.then = in_the_grant
        stage.launcher.release()
        await call.answer()
        await behind[0].answer()
        assert "an event was refused: Ready(replica='nobody'" in caplog.text

    play(scenario)


def test_an_unknown_endpoint_is_refused_at_once_and_a_quiet_read_wakes_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        assert isinstance(stage.want("nobody").error, EndpointNotFound)
        stage.catalog.put(Registered("e", 1, "b:1", {}, Settings(), 0.0))
        stage.deployed()
        for path in (b"/healthz", b"/readyz", b"/schema.json", b"/metrics"):
            known = Target("", b"/torpor/v1/known/e" + path)
            assert stage.engine.resolve(b"/endpoints/e" + path, b"h", None) == known
        assert stage.engine.resolve(b"/endpoints/e/predict", b"h", None) == Target("e", b"/predict")
        await anyio.sleep(10)
        assert stage.launcher.started == []

    play(scenario)


def test_effects_told_from_a_descriptors_callback_are_performed_by_the_engines_own_task() -> None:
    """Under asyncio, as in the router: a callback of the loop is outside of every task, and may start none."""

    async def scenario() -> None:
        stage = Stage()
        stage.deployed()
        ours, theirs = socket.socketpair()
        call = FakeCall(stage)
        outside: list[object] = []

        def readable() -> None:
            asyncio.get_running_loop().remove_reader(ours.fileno())
            outside.append(asyncio.current_task())
            stage.engine.want(call, call.target, None)

        with ours, theirs:
            async with anyio.create_task_group() as tasks:
                await tasks.start(stage.engine.run)
                asyncio.get_running_loop().add_reader(ours.fileno(), readable)
                theirs.send(b"x")
                with anyio.fail_after(20):
                    await call.answer()
                assert outside == [None]
                call.settle(Outcome.DONE)
                stage.launcher.hold_stop()
                asyncio.get_running_loop().call_soon(lambda: stage.engine.tell(ev.Slept("e")))
                with anyio.fail_after(20):
                    while not stage.launcher.stopped:
                        await anyio.lowlevel.checkpoint()
                stage.launcher.release()
                tasks.cancel_scope.cancel()

    anyio.run(scenario)


def test_a_start_goes_on_when_the_task_that_asked_for_it_is_cancelled() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        stage.launcher.hold_start()
        async with anyio.create_task_group() as tasks:

            async def caller() -> None:
                call = stage.want()
                try:
                    await call.answer()
                except BaseException:
                    stage.engine.leave(call)
                    raise

            tasks.start_soon(caller)
            await idle()
            tasks.cancel_scope.cancel()
        stage.launcher.release()
        await idle()
        assert stage.states() == ["ready"]
        stage.nothing_is_held()

    play(scenario)


def test_errors_of_a_step_reach_whoever_told_the_event() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        replica = await stage.awake()
        with pytest.raises(KeyError, match="settled twice"):
            stage.engine.settle(Lease(replica, "", False, 0.0, {}), Outcome.DONE)
        with contextlib.suppress(TorporError):
            await stage.engine.sleep("nobody")
        stage.nothing_is_held()

    play(scenario)
