"""The export as a command: what it prints, what it reuses, what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models import store
from models.export import Order, export
from models.source import find_source
from models.steps import Steps
from tests.host.hosting import until
from torpor.errors import BadRequest, ModelNotFound
from torpor.onnx import read_card

REPOSITORY = Path(__file__).parents[2]
QUIET = Steps(6, "none")


def command(source: Path | str, home: Path, *options: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "models", str(source), "--name", "tiny", *options]
    environment = os.environ | {"BENTOML_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_second_export_of_the_same_is_already_there_and_json_is_one_object(exported: Path, tiny: Path) -> None:
    home = exported.parents[2]
    output, _ = command(tiny, home, "--json").communicate(timeout=120)
    found = json.loads(output)
    assert found["reused"] is True
    assert Path(found["path"]) == exported
    output, _ = command(tiny, home).communicate(timeout=120)
    assert output.splitlines()[-1] == f"tiny:{exported.name} is already there"
    assert [line.split("  ")[0] for line in output.splitlines()][:3] == ["variant", "max abs error", "mean cosine"]


def test_the_card_is_the_models_metadata_in_the_store(exported: Path, tiny: Path, home: Path) -> None:
    import bentoml

    model = export(Order(str(tiny), "feature-extraction", ("fp32",), "other"), QUIET).model
    stored = bentoml.models.get("other:latest")
    assert stored.tag == model.tag
    metadata = dict(stored.info.metadata)
    for name in ("source", "license", "digest", "opset", "precisions", "report", "fingerprint", "max_tokens"):
        assert name in metadata
    assert metadata == json.loads(Path(stored.path, "card.json").read_text())
    assert metadata["max_tokens"] == 24
    assert not list((home / "tmp").glob("*/"))


@pytest.mark.parametrize("step", ["asking PyTorch", "storing"])
def test_a_killed_export_leaves_nothing(step: str, tiny: Path, home: Path) -> None:
    import bentoml

    with command(tiny, home, "--progress", "json") as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if line.startswith("{") and json.loads(line)["what"].startswith(step):
                killed.send_signal(signal.SIGKILL)
                break
    assert killed.wait(30) == -signal.SIGKILL
    kept = bentoml.models.list()  # raises over a folder that is only half a model
    assert [read_card(Path(model.path))["worse"] for model in kept] in ([], [[]] if step == "storing" else [])
    until(lambda: not list((home / "tmp").glob(f"{store.PREFIX}*/")))


def test_what_is_left_where_the_guard_was_killed_too_goes_with_the_next(home: Path) -> None:
    left = home / "tmp" / f"{store.PREFIX}left"
    left.mkdir(parents=True)
    (left / store.LOCK).touch()
    with store.scratch() as work:
        assert list((home / "tmp").glob(f"{store.PREFIX}*/")) == [work]
    assert not list((home / "tmp").glob(f"{store.PREFIX}*/"))


def test_the_scratch_of_a_living_export_is_left_alone(home: Path) -> None:
    with store.scratch() as one, store.scratch() as other:
        assert one.is_dir()
        assert other.is_dir()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("./nowhere", ModelNotFound, "There is no folder"),
        ("nobody/no-such-model", ModelNotFound, "the hub gave nothing"),
        (str(REPOSITORY / "docs"), BadRequest, r"no config\.json"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_source(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "translation"}, "not a task"),
        ({"precisions": ("fp8",)}, "not a precision"),
        ({"precisions": ()}, "not a precision"),
        ({"name": "no spaces please"}, "cannot name a model"),
        ({"name": "tiny:v1"}, "cannot name a model"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused_at_once(changes: dict[str, object], message: str) -> None:
    order = {"source": "minilm", "task": "feature-extraction", "precisions": ("fp32",), "name": "tiny"} | changes
    with pytest.raises(BadRequest, match=message):
        export(Order(**order), QUIET)  # type: ignore[arg-type]


def test_a_refusal_is_two_lines_on_stderr_and_exit_status_3(home: Path) -> None:
    refused = command("./nowhere", home, "--progress", "none")
    output, errors = refused.communicate(timeout=60)
    assert refused.returncode == 3
    assert output == ""
    assert len(errors.strip().splitlines()) == 2
