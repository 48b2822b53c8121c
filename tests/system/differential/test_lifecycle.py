"""What happens around the calls: hooks, readiness, declared variables, services inside, the end."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.differential.pair import Pair, await_ready, end, home, serve, source, until
from torpor.errors import BadRequest, StartFailed

REQUIRING = """
import bentoml

@bentoml.service(envs=[
    {"name": "TORPOR_TEST_TOKEN"}, {"name": "OF_THE_BUILD", "stage": "build"}, {"name": "MOOD", "value": "calm"},
])
class Requiring:
    @bentoml.api
    def mood(self) -> str:
        import os
        return os.environ["TORPOR_TEST_TOKEN"] + os.environ["MOOD"]
"""
INNER_REQUIRING = (
    REQUIRING
    + """
@bentoml.service
class Outer:
    inner = bentoml.depends(Requiring)

    @bentoml.api
    def mood(self) -> str:
        return self.inner.mood()
"""
)


def test_startup_hooks_have_run_before_the_first_call(pair: Pair) -> None:
    assert json.loads(pair.call(200, "hurried", "started").body) == ["async startup", "init", "startup"]


def test_declared_variables_have_their_defaults(pair: Pair) -> None:
    assert pair.call(200, "hurried", "mood").body == b"calm"


def test_arguments_of_the_bento_reach_the_service(pair: Pair) -> None:
    assert pair.call(200, "narrow", "given").body == b"given"


def test_a_service_inside_is_called_started_and_has_its_variables(pair: Pair) -> None:
    assert pair.call(200, "narrow", "four_times", a=2).body == b"8"
    assert pair.call(200, "narrow", "six_times", a=2).body == b"12"
    assert json.loads(pair.call(200, "narrow", "inner_state").body) == ["init", "startup", "2"]


def test_an_error_of_a_service_inside_is_the_outer_ones(pair: Pair) -> None:
    pair.call(500, "narrow", "inner_breaks")
    pair.call(400, "narrow", "four_times", a="x")


def test_a_service_that_is_not_ready_yet_gets_no_call(pair: Pair) -> None:
    """It says so for its first half second."""
    pair.client.sleep("narrow", force=True)
    answer = pair.send("torpor", "narrow", "POST", "/four_times", json={"a": 1})
    assert (answer.status_code, answer.headers["x-torpor-cold-start"]) == (200, "true")
    phases = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert float(phases["load"]) >= 500


def test_deployment_hooks_run_once_and_shutdown_hooks_at_each_end(pair: Pair, tmp_path: Path) -> None:
    for service in ("hurried", "narrow"):
        pair.client.wake(service)
        before = told(pair.witness("torpor", service))
        pair.client.sleep(service, force=True)
        pair.client.wake(service)
        after = told(pair.witness("torpor", service))
        ended = ["async shutdown", "shutdown"] if service == "hurried" else ["inner shutdown"]
        assert sorted(after[len(before) :]) == ended
        deployed = ["deployment"] if service == "hurried" else ["inner deployment"]
        assert [line for line in after if "deployment" in line] == deployed
        assert told(pair.witness("stock", service)) == deployed
    with ExitStack() as stack:  # the same at the end of stock
        process, url = serve(tmp_path, source(tmp_path / "hurried", "hurried"), stack)
        await_ready({"hurried": url})
        end(process)
    until(lambda: "async shutdown" in told(tmp_path / "stock-hurried.witness"))
    assert sorted(told(tmp_path / "stock-hurried.witness")) == ["async shutdown", "deployment", "shutdown"]


def told(witness: Path) -> list[str]:
    return witness.read_text().splitlines()


def folder(path: Path, text: str, name: str) -> Path:
    path.mkdir()
    (path / "service.py").write_text(text)
    (path / "bentofile.yaml").write_text(f"service: service:{name}\npython: {{lock_packages: false}}\n")
    return path


def test_a_required_variable_is_refused_by_name_before_any_start(pair: Pair, tmp_path: Path) -> None:
    requiring = folder(tmp_path / "requiring", REQUIRING, "Requiring")
    with ExitStack() as stack:
        process, _ = serve(tmp_path, requiring, stack)
        assert process.wait(30) != 0
    assert "TORPOR_TEST_TOKEN" in (tmp_path / "stock-requiring.log").read_text()
    with home(pair.folder):
        with pytest.raises(BadRequest, match="TORPOR_TEST_TOKEN") as raised:
            pair.client.deploy(requiring, "requiring")
        assert "OF_THE_BUILD" not in raised.value.message
        pair.client.deploy(requiring, "requiring", env={"TORPOR_TEST_TOKEN": "very "})
    assert pair.client.endpoint("requiring").mood() == "very calm"
    pair.client.delete("requiring")


def test_a_variable_that_a_service_inside_requires_is_refused_by_name(pair: Pair, tmp_path: Path) -> None:
    outer = folder(tmp_path / "outer", INNER_REQUIRING, "Outer")
    with home(pair.folder), pytest.raises(StartFailed, match="TORPOR_TEST_TOKEN"):
        pair.client.deploy(outer, "outer")
