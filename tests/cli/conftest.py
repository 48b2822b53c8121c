"""A platform with one endpoint, `deployed`, for all tests of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.system.running import REPOSITORY, Running, running
from torpor.cli.commands import cli

DEPLOYED = REPOSITORY / "tests" / "client" / "deployed"

Torpor = Callable[..., Result]


@pytest.fixture(scope="session")
def flag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says how the endpoint's next start goes."""
    return tmp_path_factory.mktemp("flag") / "flag"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, flag: Path) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("cli")) as each:
        settings = ("--set", "drain_within=0", "--set", "stop_within=1")  # calls that a test has left end at once
        each.told("deploy", str(DEPLOYED), "--name", "deployed", "-e", f"FLAG={flag}", *settings)
        yield each


@pytest.fixture
def torpor(platform: Running, monkeypatch: pytest.MonkeyPatch) -> Torpor:
    """A command in this process, which saves an interpreter's start; its exit code and both outputs."""
    for name in os.environ.keys() - platform.env.keys():
        monkeypatch.delenv(name)
    for name, value in platform.env.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return run
