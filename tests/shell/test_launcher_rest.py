"""Fork-servers that nobody uses end, and only those: never one with a replica or a template, or that is waited for."""

from __future__ import annotations

import asyncio

from router.core.events import Kept, Ready
from router.launch.forkserver import ForkServer
from router.launch.machine import children, memory, own_memory
from router.launch.orphans import born
from tests.shell.fakes.launchers import Heard, Play, RealStage, gone


def servers(stage: RealStage) -> list[ForkServer]:
    return list(stage.launcher._servers.values())


def written(stage: RealStage) -> list[str]:
    return sorted(path.name for path in (stage.folder / "run").glob("forkserver-*.pid"))


def test_a_fork_server_unused_for_the_time_ends_and_the_next_start_makes_another(
    play: Play, processes: RealStage
) -> None:
    async def scenario() -> None:
        await processes.launcher.prepare(processes.plan("Good"))
        [server] = servers(processes)
        processes.now = 99.0
        await processes.launcher.rest(100.0)
        assert servers(processes) == [server]
        processes.now = 100.0
        await processes.launcher.rest(100.0)
        assert (servers(processes), written(processes)) == ([], [])
        await gone(server.pid)
        heard = Heard()
        await processes.launcher.start("e-1-a", processes.plan("Good"), heard.append)
        await heard.until(Ready)
        assert [each.pid for each in servers(processes)] != [server.pid]
        await processes.launcher.stop("e-1-a", 20)

    play(scenario())


def test_one_with_a_replica_lives_on_and_its_time_begins_when_that_has_ended(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await processes.launcher.start("e-1-b", processes.plan("Good"), heard.append)
        await heard.until(Ready)
        [server] = servers(processes)
        processes.now = 1000.0
        await processes.launcher.rest(100.0)
        await processes.launcher.stop("e-1-b", 20)
        processes.now = 1099.0
        await processes.launcher.rest(100.0)
        assert servers(processes) == [server]
        assert born(server.pid) is not None
        processes.now = 1100.0
        await processes.launcher.rest(100.0)
        assert servers(processes) == []

    play(scenario())


def test_one_with_a_template_lives_on(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        keeping = asyncio.create_task(
            processes.launcher.keep("e-1-t", processes.plan("Good", learn=False), heard.append)
        )
        await heard.until(Kept)
        [server] = servers(processes)
        processes.now = 1000.0
        await processes.launcher.rest(100.0)
        assert servers(processes) == [server]
        await processes.launcher.drop("e-1-t")
        await keeping
        processes.now = 1100.0
        await processes.launcher.rest(100.0)
        assert servers(processes) == []

    play(scenario())


def test_one_that_somebody_waits_for_is_in_use(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        await processes.launcher.prepare(processes.plan("Good"))
        [server] = servers(processes)
        plan = processes.plan("Good", modules=("json.tool",))
        preparing = asyncio.create_task(processes.launcher.prepare(plan))
        await asyncio.sleep(0)  # its wish is sent, and not yet answered
        processes.now = 1000.0
        await processes.launcher.rest(100.0)
        assert servers(processes) == [server]
        await preparing
        assert server.alive

    play(scenario())


def test_the_child_that_waits_for_the_next_start_is_measured_with_its_parent_and_only_there(
    play: Play, processes: RealStage
) -> None:
    async def scenario() -> None:
        await processes.launcher.prepare(processes.plan("Good"))
        [server] = servers(processes)
        while not (waiting := children(server.pid)):  # noqa: ASYNC110 - it is forked some time soon
            await asyncio.sleep(0.01)
        assert processes.launcher.own_pids() == [server.pid]
        whole, alone = memory(server.pid), own_memory(server.pid)
        assert whole is not None
        assert alone is not None
        assert whole > alone
        assert len(waiting) == 1

    play(scenario())
