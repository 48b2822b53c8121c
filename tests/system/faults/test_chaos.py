"""`torpor chaos` as a user runs it, for a few seconds, and what it says of a loss."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.system.running import TORPOR, clean_environment
from torpor.chaos.callers import Scene, judged
from torpor.chaos.look import processes, unsettled
from torpor.cli.commands import cli


def test_chaos_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    command = [TORPOR, "chaos", "--for", "5s", "--seed", "1", "--json"]
    done = subprocess.run(command, env=clean_environment(tmp_path), capture_output=True, text=True, timeout=120)
    told = json.loads(done.stdout)
    assert (done.returncode, told["lost"]) == (0, []), done.stderr
    assert told["calls"] > 10
    assert told["faults"] == sum(told["happened"].values()) > 0
    assert processes(tmp_path / "data") == {}


@pytest.mark.parametrize("text", ["0s", "soon", "-1s", "999h"])
def test_a_time_that_is_none_is_wrong_usage(text: str) -> None:
    assert CliRunner().invoke(cli, ["chaos", "--for", text]).exit_code == 2


def test_an_error_is_explained_by_a_fault_around_it_and_by_no_other() -> None:
    now = time.monotonic()
    scene = Scene("", (), now)
    assert not scene.explained(now, now + 1)
    scene.faults.append([now - 100, now - 50])
    assert not scene.explained(now, now + 1)
    scene.faults.append([now + 0.5, now + 0.6])
    assert scene.explained(now, now + 1)


def test_a_wrong_answer_and_an_unknown_error_are_no_faults_work() -> None:
    import httpx

    assert judged(httpx.Response(200, text="hello a"), 200, "hello a") is None
    assert str(judged(httpx.Response(200, text="hello b"), 200, "hello a")).startswith("wrong")
    assert str(judged(httpx.Response(404, json={"code": "endpoint_not_found"}), 200, None)).startswith("error")
    assert judged(httpx.Response(502, json={"code": "replica_died"}), 200, None) == "502 replica_died"


def test_what_is_left_over_is_seen(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "gone-1-1.sock").touch()
    (tmp_path / "run" / "gone-1-1.pid").write_text('{"pid": 4194304, "born": ""}')
    orphan = subprocess.Popen(["sleep", "60"], env={"TORPOR_DATA": str(tmp_path)}, start_new_session=True)
    try:
        wrong = unsettled(tmp_path, 4194303, [])
    finally:
        orphan.kill()
        orphan.wait()
    assert [each.split()[0] for each in wrong] == ["gone-1-1.pid", "process", "socket"]
    assert str(orphan.pid) in wrong[1]
