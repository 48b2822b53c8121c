"""What tests of containers need: an engine, an image to build on, and that nothing of theirs is left.

On a machine that has no engine they are skipped; with TORPOR_REQUIRE_CONTAINERS=1 (CI) they fail there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from tests.containers.engine import NoEngine, make_base_image, ready_engine, remove_labelled


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
