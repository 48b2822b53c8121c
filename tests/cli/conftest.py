"""The command line in the tests' own process, against the shared platform."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from tests.system.running import Running
from torpor.cli.commands import cli

Torpor = Callable[..., Result]


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
