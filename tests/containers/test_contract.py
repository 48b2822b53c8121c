"""What the engine relies on in a launcher, of the one that runs containers: the contract of `tests/shell`, real."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop

from router.core.events import Exited, Kept, Ready, Unkept
from router.shell.plan import Contained
from tests.containers.stage import ContainerStage
from tests.shell.fakes.launchers import PATIENCE, Heard, Play

# ruff: noqa: F401 - the tests of the contract are collected here again, with containers on the stage
from tests.shell.test_engine_launcher import (
    test_a_kill_from_outside_is_told_with_its_signal,
    test_a_replica_exists_when_start_returns_and_says_that_it_is_ready,
    test_a_service_that_cannot_be_made_says_why_and_exits_after_that,
    test_a_stop_after_a_cancelled_start_leaves_nothing_of_it,
    test_a_stop_before_it_is_ready_ends_it_at_once,
    test_a_stop_that_comes_while_the_start_is_under_way_waits_for_the_process_and_ends_it,
    test_exited_is_told_once_and_before_stop_returns,
    test_one_that_does_not_hear_term_is_killed_when_its_time_is_over,
    test_stopping_what_never_was_returns_at_once,
)
from tests.shell.test_engine_launcher_templates import (
    test_a_start_whose_template_is_gone_is_one_of_the_fork_server,
    test_a_template_that_is_dropped_before_it_was_made_is_not_made,
)
from torpor.errors import EngineFailed, InternalError


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """One event loop for all."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda scenario: runner.run(asyncio.wait_for(scenario, PATIENCE))


@pytest.fixture(scope="module")
def containers(play: Play, engine: Path, host_image: str) -> Iterator[ContainerStage]:
    with TemporaryDirectory() as folder:
        stage = ContainerStage(Path(folder), engine, host_image)
        yield stage
        play(stage.launcher.close())
        assert stage.left() == []


@pytest.fixture
def stage(play: Play, containers: ContainerStage) -> Iterator[ContainerStage]:
    yield containers
    play(containers.cleared())
    assert containers.left() == [], "every test ends what it started"


def test_a_start_that_cannot_be_made_raises_and_tells_nothing(play: Play, stage: ContainerStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        with pytest.raises(EngineFailed, match="to make the container"):
            await stage.launcher.start("e-1-h", stage.plan("Good", contained=Contained("0" * 64)), heard.append)
        await stage.launcher.stop("e-1-h", 600)
        assert heard == []
        await stage.launcher.start("e-1-i", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        await stage.launcher.stop("e-1-i", 20)

    play(scenario())


def test_replicas_are_forked_in_a_kept_container_which_ends_after_them(play: Play, stage: ContainerStage) -> None:
    async def scenario() -> None:
        launcher, heard = stage.launcher, Heard()
        plan = stage.plan("Good", learn=False)
        keeping = asyncio.create_task(launcher.keep("e-1-t", plan, heard.append))
        kept = await heard.until(Kept)
        assert (kept.template, kept.memory > 0) == ("e-1-t", True)
        for replica in ("e-1-a", "e-1-b"):
            await launcher.start(replica, plan, heard.append, "e-1-t")
        while len(heard.of(Ready)) < 2:  # noqa: ASYNC110 - what is waited for is told by a plain callback
            await asyncio.sleep(0.002)
        assert len(await stage.containers()) == 1
        dropping = asyncio.create_task(launcher.drop("e-1-t"))
        await launcher.stop("e-1-a", 20)
        assert not keeping.done(), "it is the parent of what still runs"
        await launcher.stop("e-1-b", 20)
        await dropping
        await keeping
        assert [type(event) for event in heard] == [Kept, Ready, Ready, Exited, Exited, Unkept]
        assert [exited.status for exited in heard.of(Exited)] == [0, 0]
        assert heard.of(Unkept) == [Unkept("e-1-t")]

    play(scenario())


def test_a_container_that_is_dropped_while_it_imports_is_gone_at_once(play: Play, stage: ContainerStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        keeping = asyncio.ensure_future(stage.launcher.keep("e-1-t", stage.plan("Good", learn=False), heard.append))
        while not stage.launcher.has("e-1-t"):  # noqa: ASYNC110 - nothing is told before its imports are done
            await asyncio.sleep(0.001)
        await stage.launcher.drop("e-1-t")
        with pytest.raises(InternalError, match="is gone"):
            await keeping
        assert heard == []

    play(scenario())


def test_replicas_end_with_a_kept_container_that_is_killed(play: Play, stage: ContainerStage) -> None:
    async def scenario() -> None:
        launcher, heard = stage.launcher, Heard()
        plan = stage.plan("Good", learn=False)
        keeping = asyncio.create_task(launcher.keep("e-1-t", plan, heard.append))
        await heard.until(Kept)
        await launcher.start("e-1-a", plan, heard.append, "e-1-t")
        await heard.until(Ready)
        os.kill(launcher.pids()["e-1-t"][0], signal.SIGKILL)
        assert (await heard.until(Exited)).status == -signal.SIGKILL
        await keeping
        assert [type(event) for event in heard] == [Kept, Ready, Exited, Unkept]

    play(scenario())


def test_a_frozen_replica_goes_on_where_it_was_and_one_that_is_stopped_hears_term(
    play: Play, stage: ContainerStage
) -> None:
    async def scenario() -> None:
        launcher, heard = stage.launcher, Heard()
        await launcher.start("e-1-p", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        await launcher.pause("e-1-p")
        assert [each["State"] for each in await stage.containers()] == ["paused"]
        await launcher.resume("e-1-p", heard.append)
        assert list(heard.of(Ready)[-1].phases) == ["resume"]
        await launcher.pause("e-1-p")
        await launcher.stop("e-1-p", 20)
        assert [exited.status for exited in heard.of(Exited)] == [0]

    play(scenario())


def test_a_container_that_is_made_ahead_is_the_next_start_s(play: Play, stage: ContainerStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        plan = stage.plan("Good", {"ahead": True})
        await stage.launcher.prepare(plan)
        [made] = await stage.containers()
        assert made["State"] == "created"
        await stage.launcher.start("e-1-a", plan, heard.append)
        await heard.until(Ready)
        [runs] = [each for each in await stage.containers() if each["State"] == "running"]
        assert runs["Id"] == made["Id"]
        await stage.launcher.stop("e-1-a", 20)
        while [each["State"] for each in await stage.containers()] != ["created"]:  # noqa: ASYNC110 - the engine's
            await asyncio.sleep(0.02)
        await stage.launcher.prepare(stage.plan("Good"))  # its revision keeps none ahead any more

    play(scenario())


def test_an_endpoint_that_is_deployed_again_has_no_container_of_the_one_removed(
    play: Play, stage: ContainerStage
) -> None:
    async def scenario() -> None:
        heard, other = Heard(), stage.folder / "other"
        other.mkdir(exist_ok=True)
        (other / "service.py").write_text((stage.folder / "src" / "service.py").read_text())
        await stage.launcher.prepare(stage.plan("Good", {"ahead": True}))
        [made] = await stage.containers()
        await stage.launcher.start("e-1-b", stage.plan("Good", {"ahead": True}, folder=other), heard.append)
        await heard.until(Ready)
        [runs] = [each for each in await stage.containers() if each["State"] == "running"]
        assert runs["Id"] != made["Id"]
        await stage.launcher.stop("e-1-b", 20)
        await stage.launcher.prepare(stage.plan("Good"))

    play(scenario())
