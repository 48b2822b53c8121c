"""What the engine relies on in a launcher: the same contract for processes of this machine and for the fake."""

from __future__ import annotations

import asyncio
import signal

import pytest

from router.core.events import Exited, Failed, Ready
from tests.shell.fakes.launcher import NOWHERE
from tests.shell.fakes.launchers import Heard, Play, Stage
from torpor.errors import InternalError


def test_a_replica_exists_when_start_returns_and_says_that_it_is_ready(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.prepare(stage.plan("Good"))
        await stage.launcher.start("e-1-a", stage.plan("Good"), heard.append)
        assert stage.launcher.said("e-1-a")["pid"] > 0
        ready = await heard.until(Ready)
        assert (ready.replica, ready.limit) == ("e-1-a", None)
        assert ready.phases["fork"] > 0
        said = stage.launcher.said("e-1-a")
        assert said["schema"]["name"] == "Good"
        assert set(said) >= {"modules", "facts", "phases", "pid"}
        await stage.launcher.stop("e-1-a", 20)
        assert heard[1:] == [Exited("e-1-a", 0, heard[-1].log)]  # type: ignore[union-attr]
        assert stage.launcher.said("e-1-a") == {}

    play(scenario())


def test_a_service_that_cannot_be_made_says_why_and_exits_after_that(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-b", stage.plan("Broken"), heard.append)
        await heard.until(Exited)
        failed, exited = heard
        assert isinstance(failed, Failed)
        assert "ZeroDivisionError: division by zero" in failed.reason
        assert any("1 / 0" in line for line in failed.log)
        assert (exited.replica, exited.status) == ("e-1-b", 1)  # type: ignore[union-attr]
        await stage.launcher.stop("e-1-b", 20)
        assert len(heard) == 2

    play(scenario())


def test_exited_is_told_once_and_before_stop_returns(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-c", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        await asyncio.gather(*(stage.launcher.stop("e-1-c", 20) for _ in range(3)))
        assert [exited.status for exited in heard.of(Exited)] == [0]

    play(scenario())


def test_a_stop_before_it_is_ready_ends_it_at_once(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-d", stage.plan("Slow"), heard.append)
        while "loads for ever" not in stage.log("e-1-d"):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.002)
        assert stage.launcher.last_words("e-1-d") == ("loads for ever",)
        await stage.launcher.stop("e-1-d", 600)
        assert stage.launcher.last_words("e-1-d") == ()
        assert [(type(event), getattr(event, "status", None)) for event in heard] == [(Exited, -signal.SIGTERM)]

    play(scenario())


@pytest.mark.parametrize("within", [20, 0])
def test_a_stop_that_comes_while_the_start_is_under_way_waits_for_the_process_and_ends_it(
    play: Play, stage: Stage, within: float
) -> None:
    async def scenario() -> None:
        heard = Heard()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.launcher.start("e-1-e", stage.plan("Good"), heard.append))
            await asyncio.sleep(0)
            await stage.launcher.stop("e-1-e", within)
            assert len(heard.of(Exited)) == 1
        await asyncio.sleep(0)
        assert len(heard.of(Exited)) == 1
        assert stage.launcher.said("e-1-e") == {}

    play(scenario())


def test_a_stop_after_a_cancelled_start_leaves_nothing_of_it(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.prepare(stage.plan("Good"))
        starting = asyncio.ensure_future(stage.launcher.start("e-1-p", stage.plan("Good"), heard.append))
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        await stage.launcher.stop("e-1-p", 0)
        assert len(heard.of(Exited)) <= 1
        assert stage.launcher.said("e-1-p") == {}

    play(scenario())


def test_one_that_does_not_hear_term_is_killed_when_its_time_is_over(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-f", stage.plan("Stubborn"), heard.append)
        await heard.until(Ready)
        await stage.launcher.stop("e-1-f", 0.2)
        assert [exited.status for exited in heard.of(Exited)] == [-signal.SIGKILL]

    play(scenario())


def test_a_kill_from_outside_is_told_with_its_signal(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-g", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        stage.kill("e-1-g")
        assert (await heard.until(Exited)).status == -signal.SIGKILL
        await stage.launcher.stop("e-1-g", 20)
        assert len(heard.of(Exited)) == 1

    play(scenario())


def test_stopping_what_never_was_returns_at_once(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        await stage.launcher.stop("nobody", 600)
        assert stage.launcher.said("nobody") == {}

    play(scenario())


def test_a_start_that_cannot_be_made_raises_and_tells_nothing(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        with pytest.raises(InternalError, match="cannot be run"):
            await stage.launcher.start("e-1-h", stage.plan("Good", python=NOWHERE), heard.append)
        await stage.launcher.stop("e-1-h", 600)
        assert heard == []
        await stage.launcher.start("e-1-i", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        await stage.launcher.stop("e-1-i", 20)

    play(scenario())
