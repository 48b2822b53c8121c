"""Templates, as the engine relies on them: the same contract for processes of this machine and for the fake."""

from __future__ import annotations

import asyncio
import os
import signal

from router.core.events import Exited, Kept, Ready, Unkept
from router.launch.orphans import born
from tests.shell.fakes.launchers import Heard, Play, RealStage, Stage


def test_replicas_are_forked_from_a_template_which_ends_after_them(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        launcher, heard = stage.launcher, Heard()
        plan = stage.plan("Good", learn=False)
        keeping = asyncio.create_task(launcher.keep("e-1-t", plan, heard.append))
        kept = await heard.until(Kept)
        assert kept.template == "e-1-t"
        await launcher.start("e-1-a", plan, heard.append, "e-1-t")
        ready = await heard.until(Ready)
        assert "import" not in ready.phases, "its service was loaded before the fork"
        dropping = asyncio.create_task(launcher.drop("e-1-t"))
        await asyncio.sleep(0.05)
        assert not keeping.done(), "it is the parent of what still runs"
        await launcher.stop("e-1-a", 20)
        await dropping
        await keeping
        assert [type(event) for event in heard] == [Kept, Ready, Exited, Unkept]
        assert heard.of(Unkept) == [Unkept("e-1-t")]

    play(scenario())


def test_a_service_that_cannot_be_forked_says_why_and_leaves_no_template(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.keep("e-1-t", stage.plan("Threaded", learn=False), heard.append)
        assert heard == [Unkept("e-1-t", "it runs 2 threads once it is loaded")]

    play(scenario())


def test_a_service_that_ends_its_process_has_no_template_and_its_words_are_the_reason(
    play: Play, processes: RealStage
) -> None:
    async def scenario() -> None:
        heard = Heard()
        await processes.launcher.keep("e-1-q", processes.plan("Quits", learn=False), heard.append)
        assert heard == [Unkept("e-1-q", "its service cannot be made without an event loop: no GPU here")]

    play(scenario())


def test_a_template_that_is_dropped_before_it_was_made_is_not_made(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.drop("e-1-t")
        await stage.launcher.keep("e-1-t", stage.plan("Good", learn=False), heard.append)
        assert heard == [Unkept("e-1-t")]

    play(scenario())


def test_a_start_whose_template_is_gone_is_one_of_the_fork_server(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-a", stage.plan("Good"), heard.append, "e-1-gone")
        await heard.until(Ready)
        await stage.launcher.stop("e-1-a", 20)

    play(scenario())


def test_replicas_end_with_a_template_that_is_killed(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        launcher, heard = processes.launcher, Heard()
        plan = processes.plan("Good", learn=False)
        keeping = asyncio.create_task(launcher.keep("e-1-t", plan, heard.append))
        await heard.until(Kept)
        await launcher.start("e-1-a", plan, heard.append, "e-1-t")
        await heard.until(Ready)
        pid = launcher.pids()["e-1-a"][0]
        os.kill(launcher.pids()["e-1-t"][0], signal.SIGKILL)
        exited = await heard.until(Exited)
        await keeping
        assert exited.status == -signal.SIGKILL
        assert born(pid) is None
        assert processes.left() == []

    play(scenario())
