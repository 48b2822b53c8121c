"""Fixtures of the launcher's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop

from tests.shell.fakes.launchers import PATIENCE, FakeStage, Play, RealStage, Stage


@pytest.fixture(scope="package")
def play() -> Iterator[Play]:
    """One event loop for all: the fork-server's imports are paid once."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda scenario: runner.run(asyncio.wait_for(scenario, PATIENCE))


@pytest.fixture(scope="package")
def processes(play: Play) -> Iterator[RealStage]:
    with TemporaryDirectory() as folder:
        stage = RealStage(Path(folder))
        stage.launcher.open()
        yield stage
        play(stage.launcher.close())
        assert list((stage.folder / "run").iterdir()) == []


@pytest.fixture(params=["fake", "processes"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
    else:
        real: RealStage = request.getfixturevalue("processes")
        yield real
        assert real.left() == [], "every test ends what it started"
