"""One platform with the victims, for the faults that a platform survives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.faults.watching import Victims, deploy
from tests.system.running import running
from torpor.chaos.look import processes, settle


@pytest.fixture(scope="session")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    folder: Path = tmp_path_factory.mktemp("faults")
    with ThreadPoolExecutor(16) as callers:
        with running(folder) as platform:
            yield deploy(platform, folder / "mode", callers)
        left = settle(lambda: list(map(str, processes(folder / "data").items())), 10)
    assert left == [], "what runs on after `torpor down`"
