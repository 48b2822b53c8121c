"""An endpoint with `threads` above one and a template: that has one thread, and its forks get them all when awake."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from router.launch.machine import share
from tests.system import handmade
from tests.system.running import Running, running
from torpor.chaos.look import written
from torpor.onnx import CARD, GRAPH, fingerprint, tune

SERVICE = """
import os
import bentoml
from torpor.onnx import open_session

@bentoml.service
class Model:
    def __init__(self) -> None:
        self.session = open_session(os.environ["MODEL"], "fp32")

    @bentoml.api
    def multiply(self, rows: list[list[float]]) -> list[list[float]]:
        import numpy as np
        return self.session.run(None, {"x": np.array(rows, dtype=np.float32)})[0].tolist()

    @bentoml.api
    def threads(self) -> dict:
        return {"pool": self.session.get_session_options().intra_op_num_threads, "parent": os.getppid()}
"""
SIZE = 96
THREADS = share(2, 1)  # what the machine allows of two


@pytest.fixture(scope="module")
def weights() -> Any:
    return np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, weights: Any) -> Path:
    """An artifact whose graph multiplies its input with a matrix that lies packed on the disk."""
    shape = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", SIZE]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "multiply", shape[:1], shape[1:], [numpy_helper.from_array(weights, "w")])
    folder = tmp_path_factory.mktemp("artifact") / "model"
    portable = folder / "portable" / "fp32" / GRAPH
    portable.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), portable)
    tune(portable, folder / "tuned" / "fp32")
    (folder / CARD).write_text(json.dumps({"precisions": {"fp32": {}}, "fingerprint": fingerprint()}))
    return folder


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("threads")) as started:
        handmade.upload(started.url, "model", handmade.bento("model", SERVICE, "service:Model"))
        settings = {"sleep": "template", "threads": 2}
        body = {"name": "model", "bento": "model:1", "settings": settings, "env": {"MODEL": str(model)}}
        told = list(handmade.events(started.url, body))
        assert told[-1]["event"] == "deployed", told
        yield started


def test_a_forks_session_gets_all_its_threads_behind_the_first_answer_which_stays_the_same(
    platform: Running, weights: Any
) -> None:
    view: dict[str, Any] = {}

    def kept() -> bool:
        view.update(json.loads(platform.told("show", "model", "--json")))
        assert view["no_template"] is None
        return bool(view["template"] and view["template"]["state"] == "kept")

    until(kept)
    template = written(platform.data)[view["template"]["id"]]
    assert len(os.listdir(f"/proc/{template}/task")) == 1, "a template is single-threaded"
    platform.told("sleep", "model")
    rows = np.random.default_rng(1).standard_normal((32, SIZE)).astype(np.float32)
    with httpx.Client(base_url=f"{platform.url}/endpoints/model", timeout=60) as http:
        first = http.post("/multiply", json={"rows": rows.tolist()})
        assert first.headers["X-Torpor-Cold-Start"] == "true"
        np.testing.assert_allclose(first.json(), rows @ weights, rtol=1e-4, atol=1e-4)
        told: dict[str, int] = http.post("/threads", json={}).json()
        assert told["parent"] == template, "it is a fork of the template"
        until(lambda: http.post("/threads", json={}).json()["pool"] == THREADS)
        again = http.post("/multiply", json={"rows": rows.tolist()})
        np.testing.assert_allclose(again.json(), first.json(), rtol=1e-5, atol=1e-5)
        [replica] = json.loads(platform.told("show", "model", "--json"))["replicas"]
    assert len(os.listdir(f"/proc/{template}/task")) == 1, "its forks' threads are their own"
    assert len(os.listdir(f"/proc/{replica['pid']}/task")) >= THREADS


def until(true: Callable[[], bool], within: float = 60.0) -> None:
    give_up = time.monotonic() + within
    while not true():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.05)
