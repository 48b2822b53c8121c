"""What tests of containers need: an engine, an image to build on, and that nothing of theirs is left.

On a machine that has no engine they are skipped; with TORPOR_REQUIRE_CONTAINERS=1 (CI) they fail there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from tests.containers.devices import specified
from tests.containers.engine import NoEngine, make_base_image, ready_engine, remove_labelled
from tests.containers.host import make_host_image


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an engine that answers."""
    with ExitStack() as stack:
        try:
            socket = stack.enter_context(ready_engine(tmp_path_factory.mktemp("engine")))
        except NoEngine as reason:
            cannot(reason)
        yield socket


@pytest.fixture(scope="session")
def base_image(engine: Path) -> str:
    """The reference of an image with Python and pip, which the engine has."""
    try:
        return make_base_image(engine)
    except NoEngine as reason:
        cannot(reason)


@pytest.fixture(scope="session")
def host_image(engine: Path, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of an image in which replicas run, of the services of this repository too. Made by the first run."""
    return asyncio.run(make_host_image(engine, tmp_path_factory.mktemp("host")))


@pytest.fixture
def card_devices(engine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine finds devices that stand in for graphics cards."""
    with ExitStack() as stack:
        try:
            stack.enter_context(specified(engine, monkeypatch))
        except NoEngine as reason:
            cannot(reason)
        yield


@pytest.fixture
def swept(engine: Path) -> Iterator[Callable[[str], None]]:
    """Takes labels, `key` or `key=value`: what of containers and images has one is removed after the test."""
    labels: list[str] = []
    yield labels.append
    for label in labels:
        remove_labelled(engine, label)


def cannot(reason: Exception) -> NoReturn:
    if os.environ.get("TORPOR_REQUIRE_CONTAINERS") == "1":
        pytest.fail(f"TORPOR_REQUIRE_CONTAINERS=1, but {reason}", pytrace=False)
    pytest.skip(str(reason))
