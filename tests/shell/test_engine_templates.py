"""Templates through the engine: kept when an endpoint falls asleep, forked from when it wakes, given up with it."""

from __future__ import annotations

import pytest

from router.core.events import Measured
from tests.shell.fakes.stage import Stage, idle, play
from torpor.errors import InternalError

MB = 1 << 20


async def asleep(stage: Stage, name: str = "e", revision: int = 1) -> None:
    stage.deployed(name, revision)
    await stage.awake(name)
    await stage.engine.sleep(name)
    await idle()


def test_a_sleeping_endpoint_wakes_from_its_template() -> None:
    async def scenario(stage: Stage) -> None:
        await asleep(stage)
        [template] = stage.launcher.templates
        replica = await stage.awake()
        assert stage.launcher.forked[replica] == template

    play(scenario)


@pytest.mark.parametrize("kind", ["Threaded", "Broken"])
def test_a_service_that_cannot_be_forked_sleeps_deep_and_says_why(kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        await stage.awake()
        stage.kind = kind
        stage.deployed(revision=2, sleep="template")
        await idle()
        assert stage.launcher.templates == {}
        assert stage.engine.schedule.lines["e"].no_template == "it runs 2 threads once it is loaded"

    play(scenario)


def test_a_template_that_cannot_be_made_now_is_made_at_the_next_sleep() -> None:
    async def scenario(stage: Stage) -> None:
        stage.launcher.unkept = InternalError("the fork-server is gone")
        await asleep(stage)
        assert stage.launcher.templates == {}
        stage.launcher.unkept = None
        await stage.awake()
        await stage.engine.sleep("e")
        await idle()
        assert len(stage.launcher.templates) == 1

    play(scenario)


def test_a_template_that_was_given_up_before_it_was_made_is_never_made() -> None:
    async def scenario(stage: Stage) -> None:
        stage.deployed()
        await stage.awake()
        stage.launcher.hold_keep()
        await stage.engine.sleep("e")
        await idle()
        await stage.engine.remove("e")
        stage.launcher.release()
        await idle()
        assert stage.launcher.templates == {}
        assert stage.engine.schedule.shelf.templates == {}

    play(scenario)


def test_memory_that_runs_short_takes_templates_first() -> None:
    async def scenario(stage: Stage) -> None:
        stage.engine.schedule.room.limit = 500 * MB
        await asleep(stage)
        [template] = stage.launcher.templates
        stage.deployed("other")
        replica = await stage.awake("other")
        stage.engine.tell(Measured({template: 13 * MB, replica: 490 * MB}))
        await idle()
        assert stage.launcher.templates == {}
        assert stage.states("other") == ["ready"]

    play(scenario)
