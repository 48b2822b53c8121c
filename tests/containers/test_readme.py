"""The README's section on containers, run as it stands there, with an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import remove_labelled
from tests.models.minilm import minilm_environment
from tests.system.running import clean_environment, free_port
from tests.test_readme import README, agree, commands, run, section
from torpor.cli.platform import answers, down, read_address

BUILT_WITHIN = 600.0  # seconds of one command: an image is built


@pytest.fixture
def shell(tmp_path: Path, engine: Path, base_image: str) -> Iterator[dict[str, str]]:
    """A platform of its own on that engine, and the model of the demo."""
    minilm_environment()
    env = {"TORPOR_PORT": str(free_port()), "TORPOR_ENGINE": str(engine), "TORPOR_BUILD_NETWORK": "host"}
    yield clean_environment(tmp_path) | env | {"TORPOR_PORTS_FROM": str(free_port())}
    data = tmp_path / "data"
    if (left := read_address(data)) is not None and answers(left):
        down(data)
    if (data / "platform").exists():
        remove_labelled(engine, f"torpor.image={(data / 'platform').read_text().strip()}")


def test_the_session_with_containers_does_what_the_readme_shows(shell: dict[str, str]) -> None:
    before = [each.line for each in commands(README) if each.line.startswith(("source", "export BENTOML"))]
    for command in commands(section("Containers")):
        agree(command, run(command, before, shell, BUILT_WITHIN))
