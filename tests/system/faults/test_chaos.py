"""`torpor chaos` as a user runs it, for a few seconds, and what it says of a loss."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from tests.system.running import TORPOR, clean_environment
from torpor.chaos.callers import Scene, judged
from torpor.chaos.faults import AFTERMATH, CAUSES, LINGER, Fault
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
    scene = Scene("", (), 1000.0)
    assert not scene.explained("deep", "replica_died", 1000.0, 1001.0)
    scene.faults.append(Fault("a replica ends itself", 900.0, 950.0, {"deep"}))
    assert not scene.explained("deep", "replica_died", 1000.0, 1001.0)
    scene.faults.append(Fault("a replica ends itself", 1000.5, 1000.6, {"deep"}))
    assert scene.explained("deep", "replica_died", 1000.0, 1001.0)
    assert scene.explained("deep", "replica_died", 1000.6 + LINGER, 1009.0)
    assert not scene.explained("deep", "replica_died", 1000.7 + LINGER, 1009.0)


@pytest.mark.parametrize(
    ("kind", "what", "explained"),
    [
        ("a replica is killed", "replica_died", True),
        ("a replica is killed", "bad_answer", False),
        ("a replica is killed", "unreachable", False),
        ("a replica answers garbage", "bad_answer", True),
        ("a replica is killed", "start_killed", True),
        ("a replica is killed", "start_raised", False),
        ("a replica answers garbage", "start_killed", False),
        ("a fork-server is killed", "start_unforked", True),
        ("starts fail", "start_raised", True),
        ("starts fail", "start_killed", False),
        ("starts fail", "cut", False),
        ("the platform is killed", "unreachable", True),
        ("the platform is killed", "replica_died", False),
        ("a replica is deaf to TERM", "replica_died", False),
        ("an endpoint is put to sleep", "queue_timeout", False),
        ("an endpoint is forced to sleep", "queue_timeout", True),
    ],
)
def test_a_fault_explains_only_what_its_kind_may_cause_and_only_of_what_it_touched(
    kind: str, what: str, explained: bool
) -> None:
    fault = Fault(kind, 10.0, 11.0)
    assert not fault.explains("deep", what, 10.0, 10.5), "it touched nobody"
    assert fault.on("deep") == "deep"
    assert fault.explains("deep", what, 10.0, 10.5) == explained
    assert not fault.explains("kept", what, 10.0, 10.5)
    fault.endpoints = None
    assert fault.explains("kept", what, 10.0, 10.5) == explained


def test_a_start_that_failed_explains_errors_for_as_long_as_it_puts_others_off() -> None:
    fault = Fault("a replica is killed", 10.0, 11.0, {"deep"})
    later = 11.0 + (LINGER + AFTERMATH) / 2
    assert fault.explains("deep", "start_killed", later, later + 1)
    assert not fault.explains("deep", "replica_died", later, later + 1)


def test_a_wrong_answer_and_an_unknown_error_are_no_faults_work() -> None:
    assert judged(httpx.Response(200, text="hello a"), 200, "hello a") is None
    assert str(judged(httpx.Response(200, text="hello b"), 200, "hello a")).startswith("wrong")
    assert str(judged(httpx.Response(404, json={"code": "endpoint_not_found"}), 200, None)).startswith("error")
    assert str(judged(httpx.Response(500, json={"code": "replica_died"}), 200, None)).startswith("error 500")
    assert str(judged(httpx.Response(502, json={"code": "replica_died"}), 200, None)).startswith("replica_died 502")


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("it was killed by SIGKILL", "start_killed"),
        ("RuntimeError: told to fail", "start_raised"),
        ("a forking process is gone: -", "start_unforked"),
        ("it exited with status 1", "start_failed"),
    ],
)
def test_a_start_that_failed_is_told_apart_by_its_reason(reason: str, what: str) -> None:
    body = {"code": "start_failed", "error": f"a replica of 'deep' could not start: {reason}\nits log has the rest"}
    found = str(judged(httpx.Response(503, json=body), 200, None)).split()[0]
    assert found == what
    assert any(found in causes for causes in CAUSES.values()) == (what != "start_failed")


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
