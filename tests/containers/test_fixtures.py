"""The fixtures of these tests: an engine of one's own ends with its tests, what is labelled goes, nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.containers.engine import NoEngine, answers, asked, own_engine, remove_labelled

KEY = "torpor.test.fixtures"


def made(engine: Path, image: str, labels: dict[str, str]) -> str:
    told = {"Image": image, "Cmd": ["true"], "Labels": labels, "NetworkDisabled": True}
    answer = asked(engine, "POST", "/containers/create", json=told)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["Id"])


def there(engine: Path, container: str) -> bool:
    return asked(engine, "GET", f"/containers/{container}/json").status_code == 200


def test_what_has_the_label_is_removed_and_what_has_another_value_stays(engine: Path, base_image: str) -> None:
    mine, other = made(engine, base_image, {KEY: "mine"}), made(engine, base_image, {KEY: "other"})
    try:
        remove_labelled(engine, f"{KEY}=mine")
        assert [there(engine, each) for each in (mine, other)] == [False, True]
    finally:
        remove_labelled(engine, KEY)
    assert not there(engine, other)


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(NoEngine, match="does not answer"), own_engine(["false"], tmp_path / "engine.sock"):
        pass


def test_an_engine_of_ones_own_ends_with_its_tests(engine: Path) -> None:
    if "podman" not in asked(engine, "GET", "/version").text.lower():
        return  # Docker's daemon is not a test's to start
    with tempfile.TemporaryDirectory() as name:  # a runroot has 50 characters at most
        roots = ["--root", f"{name}/root", "--runroot", f"{name}/run", "--storage-driver", "vfs"]
        with own_engine(["podman", *roots], Path(name, "engine.sock")) as own:
            assert answers(own)
            assert asked(own, "GET", "/images/json").json() == []
        assert not answers(own)
