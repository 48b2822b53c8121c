"""What a platform leaves in an engine: nothing of its own for long, and nobody else's is touched."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import pytest

from router.core.events import Ready
from router.launch.container.api import ContainerApi
from router.launch.container.platform import Platform
from tests.containers.cells import cells, until
from tests.containers.engine import asked
from tests.containers.stage import ContainerStage
from tests.shell.fakes.launchers import PATIENCE, Heard
from torpor.chaos.look import alive

SECONDS = 20.0  # within which what a killed platform left is gone, once it is there again


class Staged(Protocol):
    def __call__(self, name: str, api: type[ContainerApi] = ContainerApi) -> ContainerStage: ...


@pytest.fixture
def staged(tmp_path: Path, engine: Path, host_image: str, swept: Callable[[str], None]) -> Staged:
    """Stages by name, each a platform of its own on the same engine."""

    def make(name: str, api: type[ContainerApi] = ContainerApi) -> ContainerStage:
        (tmp_path / name).mkdir()
        stage = ContainerStage(tmp_path / name, engine, host_image, api)
        swept(stage.label)
        return stage

    return make


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE))


def test_two_platforms_leave_each_other_s_containers_alone(staged: Staged) -> None:
    async def scenario() -> None:
        mine, other, heard = staged("mine"), staged("other"), Heard()
        await other.launcher.start("e-1-a", other.plan("Good"), heard.append)
        await heard.until(Ready)
        await other.launcher.prepare(other.plan("Good", {"ahead": True}))
        await mine.launcher.prepare(mine.plan("Good", {"ahead": True}))
        theirs = {each["Id"] for each in await other.containers()}
        assert len(theirs) == 2
        await mine.launcher.sweep(set())
        await mine.cleared()
        assert {each["Id"] for each in await other.containers()} == theirs
        await mine.launcher.close()
        assert {each["Id"] for each in await other.containers()} == theirs
        await other.launcher.stop("e-1-a", 20)
        await other.launcher.close()
        assert await mine.containers() == []

    play(scenario())


def test_a_container_that_nobody_owns_goes_with_the_next_sweep_in_whatever_state_it_is(
    staged: Staged, engine: Path
) -> None:
    async def scenario() -> None:
        stage, heard = staged("mine"), Heard()
        await stage.launcher.start("e-1-a", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        [own] = [each["Id"] for each in await stage.containers()]
        for done in ([], ["start"], ["start", "pause"], ["start", "kill"]):
            stray(engine, stage.image, stage.label, done)
        assert len(await stage.containers()) == 5
        await stage.launcher.sweep({("e", 1)})
        assert [each["Id"] for each in await stage.containers()] == [own]
        await stage.launcher.stop("e-1-a", 20)
        await stage.launcher.close()
        assert await stage.containers() == []

    play(scenario())


def stray(engine: Path, image: str, label: str, done: list[str]) -> None:
    """A container with this platform's label, of whoever made it."""
    key, _, value = label.partition("=")
    told = {"Image": image, "Entrypoint": ["sleep", "60"], "Cmd": [], "Labels": {key: value}, "NetworkDisabled": True}
    made = asked(engine, "POST", "/containers/create", json=told).json()["Id"]
    for each in done:
        asked(engine, "POST", f"/containers/{made}/{each}").raise_for_status()


def test_what_is_made_while_a_sweep_looks_stays(staged: Staged) -> None:
    async def scenario() -> None:
        class Slow(ContainerApi):
            async def labelled(self, label: str) -> list[dict[str, Any]]:
                await stage.launcher.prepare(stage.plan("Good", {"ahead": True}))
                return await super().labelled(label)

        stage = staged("mine", Slow)
        await stage.launcher.prepare(stage.plan("Good", {"ahead": True}, endpoint="first"))
        await stage.launcher.sweep({("e", 1), ("first", 1)})
        assert len(await stage.containers()) == 2
        await stage.launcher.close()

    play(scenario())


def test_a_sweep_beside_an_engine_that_is_down_is_no_fault(staged: Staged, tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = staged("mine")
        await stage.launcher.prepare(stage.plan("Good", {"ahead": True}))
        down = ContainerApi(tmp_path / "nobody.sock")
        assert await Platform(stage.folder, down).reap(()) == []
        await down.close()
        assert len(await stage.containers()) == 1
        assert len(await Platform(stage.folder, stage.api).reap(())) == 1
        await stage.launcher.close()

    play(scenario())


def test_a_platform_that_had_no_container_asks_no_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        api = ContainerApi(tmp_path / "nobody.sock")
        assert await Platform(tmp_path, api).reap(()) == []
        assert not (tmp_path / "platform").exists()
        await api.close()

    play(scenario())


def test_a_platform_that_is_killed_has_everything_once_when_it_is_there_again(
    tmp_path: Path, engine: Path, host_image: str
) -> None:
    with cells(tmp_path, engine, host_image) as platform:
        platform.deploy("alone", sleep="stop")
        platform.deploy("kept", sleep="fork")
        platform.deploy("frozen", sleep="pause")
        for name in ("alone", "kept", "frozen"):
            platform.inside(name, "out = 1")
        platform.sleep("frozen")
        before = {each["Id"]: each["State"] for each in platform.containers()}
        assert {"running", "paused", "created"} <= set(before.values())
        running = platform.calling("alone", "import time; time.sleep(60)")
        platform.busy("alone")
        os.kill(platform.platform.pid, signal.SIGKILL)
        until(lambda: not alive(platform.platform.pid))
        assert running.exception() is not None, "its line broke"
        again = platform.up_again()
        until(lambda: not before.keys() & {each["Id"] for each in again.containers()}, SECONDS)
        for name in ("alone", "kept", "frozen"):
            assert again.inside(name, "out = 2") == 2
            replicas = again.view(name)["replicas"]
            assert len(replicas) == 1
            runs = [each for each in again.containers(name) if each["State"] == "running"]
            assert len(runs) <= 2, "its own, and the one that it is kept with"
