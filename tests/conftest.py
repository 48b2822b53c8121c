"""A platform with one endpoint, `deployed`, for the tests of the client and of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import REPOSITORY, Running, running

DEPLOYED = REPOSITORY / "tests" / "client" / "deployed"


@pytest.fixture(scope="session")
def flag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says how the endpoint's next start goes."""
    return tmp_path_factory.mktemp("flag") / "flag"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, flag: Path) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("shared")) as started:
        # Calls that a test has left end at once; every start is a whole one, with the flag read and the log its own.
        settings = [f"--set={each}" for each in ("drain_within=0", "stop_within=1", "sleep=deep")]
        started.told("deploy", str(DEPLOYED), "--name", "deployed", "-e", f"FLAG={flag}", *settings)
        yield started
