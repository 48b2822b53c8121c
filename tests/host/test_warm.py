"""What is computed before the fork comes out as BentoML computes it; sessions are opened beside a service's import."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.host.hosting import Host
from torpor.host.service import facts, open_early
from torpor.onnx import CARD, GRAPH, fingerprint, open_session, tune

REPOSITORY = Path(__file__).parents[2]

SERVICE = """
import os
import bentoml
from torpor.onnx import open_session

@bentoml.service
class Model:
    def __init__(self) -> None:
        self.session = open_session(os.environ["MODEL"], "fp32")

    @bentoml.api
    def double(self, x: list[float]) -> list[float]:
        import numpy as np
        return self.session.run(None, {"x": np.array(x, dtype=np.float32)})[0].tolist()

    @bentoml.api
    def early(self) -> bool:
        return self.session.finish() is not None  # only a session that was opened in a hurry has something to finish
"""


@pytest.fixture(scope="module")
def warmed() -> Any:
    """BentoML's configuration in several states, from a process of its own: it is changed for good."""
    command = [sys.executable, "-m", "tests.host.warmed"]
    env = {**os.environ, "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("state", ["warm", "again", "trusted"])
def test_configuration_is_what_bentoml_computes_by_itself(warmed: Any, state: str) -> None:
    """`again`: after a user has changed what it was given."""
    assert warmed[state] == warmed["plain"]
    assert warmed["plain"]["service"]["services"]["Subject"]["traffic"]["timeout"] == 7


def test_yaml_is_read_alike_and_stays_safe(warmed: Any) -> None:
    assert warmed["warm"]["yaml"][-2:] == ["ParserError", "ConstructorError"]


def test_without_sessions_to_open_nothing_is_imported_for_them(warmed: Any) -> None:
    assert warmed["onnx"] is False


def test_a_proven_configuration_is_not_checked_again(warmed: Any) -> None:
    assert (warmed["checked"], warmed["checked when trusted"]) == (True, False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An artifact whose graph doubles its input."""
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "double", values[:1], values[1:], [two])
    folder = tmp_path / "model"
    portable = folder / "portable" / "fp32" / GRAPH
    portable.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), portable)
    tune(portable, folder / "tuned" / "fp32")
    (folder / CARD).write_text(json.dumps({"precisions": {"fp32": {}}, "fingerprint": fingerprint()}))
    return folder


def opened_early(told: list[dict[str, Any]]) -> None:
    """Returns when all threads that opening early starts have ended."""
    before = set(threading.enumerate())
    open_early(told)
    for thread in set(threading.enumerate()) - before:
        thread.join()


def test_an_early_session_is_the_one_that_the_service_gets(model: Path) -> None:
    told = [open_session(model, "fp32").facts]
    opened_early(told)
    shutil.rmtree(model)  # nothing is left to be opened
    session = open_session(model, "fp32")
    assert session.run(None, {"x": np.array([3], dtype=np.float32)})[0].tolist() == [6.0]


def test_early_sessions_that_nobody_asked_for_are_let_go_when_the_service_is_ready(model: Path) -> None:
    told = [open_session(model, "fp32").facts]
    opened_early(told)
    assert facts()["provider"] == "CPUExecutionProvider"
    shutil.rmtree(model)
    with pytest.raises(Exception, match="is not a model that torpor exported"):
        open_session(model, "fp32")


def test_a_replica_opens_early_what_its_first_start_opened(host: Host, model: Path) -> None:
    first = host.fork("Model", SERVICE, learn=True, env={"MODEL": str(model)})
    told = first.ready()["facts"]
    assert (told["provider"], len(told["sessions"])) == ("CPUExecutionProvider", 1)
    assert first.call("early").json() is False

    second = host.fork("Model", SERVICE, sessions=told["sessions"], env={"MODEL": str(model)})
    again = second.ready()["facts"]["sessions"]
    assert [session["folder"] for session in again] == [str(model)]
    assert second.call("early").json() is True
    assert second.call("double", x=[1, 2.5]).json() == [2.0, 5.0]

    stale = [session | {"folder": "/gone"} for session in told["sessions"]]
    third = host.fork("Model", SERVICE, sessions=stale, env={"MODEL": str(model)})
    third.ready()
    assert third.call("early").json() is False
    for replica in (first, second, third):
        replica.terminate()
        assert replica.exited() == 0
