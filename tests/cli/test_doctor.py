"""`torpor doctor`: each fault is told with what to do, and looking changes nothing."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Torpor
from tests.system.running import Running
from torpor.cli import checks
from torpor.cli.checks import FAIL, OK, WARN, Check

GIB = 1 << 30
L4 = {"index": 0, "uuid": "GPU-0", "name": "NVIDIA L4", "memory": 24 * GIB, "fault": ""}


def of(found: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in found}


def test_a_sound_machine_with_a_running_platform_passes(torpor: Torpor, platform: Running) -> None:
    before = sorted(path.name for path in platform.data.iterdir())
    result = torpor("doctor", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, [check for check in found if check["state"] == FAIL]) == (0, [])
    named = of(found)
    assert len(named) == len(found) == 16
    assert platform.url in named["platform"]["says"]
    assert named["database"]["says"] == "1 endpoints"
    assert named["fork"]["state"] == OK
    assert "CPUExecutionProvider" in named["processor"]["says"]
    assert sorted(path.name for path in platform.data.iterdir()) == before


def test_faults_are_told_to_people_with_a_remedy_and_an_exit_code(
    torpor: Torpor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "torpor.db").write_bytes(b"SQLite format 3\0" + b"junk" * 2000)
    config = tmp_path / "torpor.toml"
    config.write_text("memory = 1000000000000000\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("TORPOR_PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("TORPOR_ENGINE", str(tmp_path / "engine.sock"))
        result = torpor("doctor", "--data", str(data), "--config", str(config))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    states = {line[6:20].strip(): line[:4].strip() for line in lines if line[:4].strip() in (OK, WARN, FAIL)}
    wrong = {name: state for name, state in states.items() if state != OK}
    assert wrong == {"data folder": WARN, "database": FAIL, "port": FAIL, "memory": FAIL, "containers": WARN}
    assert f"(pid {os.getpid()})" in result.stdout
    for remedy in (f"chmod 700 {data}", "put a backup of it in its place", "choose another with --port", "unset it"):
        assert any(line.startswith(" " * 21) and remedy in line for line in lines)


def test_a_faulty_configuration_is_told_whole(tmp_path: Path) -> None:
    config = tmp_path / "torpor.toml"
    config.write_text("prot = 1\nmax_body = 0\n")
    found = checks.configuration(tmp_path, str(config))
    assert isinstance(found, Check)
    assert (found.state, "did you mean port?" in found.says, "max_body" in found.says) == (FAIL, True, True)
    assert found.remedy == "see docs/config.md for all keys"


def test_a_database_is_read_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "torpor.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE endpoints (name TEXT)")
        connection.execute("INSERT INTO endpoints VALUES ('a')")
        connection.commit()
    before = path.read_bytes()
    assert checks.database(path) == Check("database", OK, "1 endpoints")
    assert (path.read_bytes(), [each.name for each in tmp_path.iterdir()]) == (before, ["torpor.db"])


def test_a_platform_that_was_killed_is_told(tmp_path: Path) -> None:
    (tmp_path / "torpor.json").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:9", "started_at": 0}))
    found = checks.running(tmp_path)
    assert (found.state, "does not answer" in found.says) == (WARN, True)


@pytest.mark.parametrize(("wanted", "state"), [(False, WARN), (True, FAIL)])
def test_an_engine_that_does_not_answer_is_a_fault_only_where_endpoints_are_containers(
    tmp_path: Path, wanted: bool, state: str
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "engine.sock"))  # nobody listens at it
        found = checks.containers(str(tmp_path / "engine.sock"), wanted)
    assert (found.name, found.state) == ("containers", state)
    assert f"{tmp_path}/engine.sock" in found.says
    assert "systemctl start podman.socket" in found.remedy
    assert ("only the launcher `container`" in found.remedy) is not wanted


def test_a_data_folder_that_is_a_file_is_refused_and_one_that_is_not_there_is_made_later(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checks.folder_of(tmp_path / "file").state == FAIL
    assert checks.folder_of(tmp_path / "a" / "b").state == OK
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("check", "state"),
    [
        (checks.gpus({"cards": [], "driver": False, "why": "no driver"}), OK),
        (checks.gpus({"cards": [], "driver": True, "why": "it was replaced"}), WARN),
        (checks.gpus({"cards": [L4], "driver": True, "why": ""}), OK),
        (checks.gpus({"cards": [L4, {**L4, "index": 1, "fault": "MIG"}], "driver": True, "why": ""}), WARN),
        (checks.descriptors(256), WARN),
        (checks.descriptors(65536), OK),
        (checks.memory(2 * GIB, 3 * GIB), FAIL),
        (checks.memory(2 * GIB, None), OK),
        (checks.memory(GIB // 4, None), WARN),
        (checks.fork(1, 0), OK),
        (checks.fork(4, 0), WARN),
        (checks.fork(1, -9), FAIL),
        (checks.stale(2, []), OK),
        (checks.stale(2, ["a:1"]), WARN),
    ],
    ids=str,
)
def test_what_is_not_ok_says_what_to_do(check: Check, state: str) -> None:
    assert (check.state, bool(check.remedy)) == (state, state != OK)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ('jinja2>=3.1; extra == "platform"', "jinja2"),
        ('bentoml==1.4.39; extra == "platform"', "bentoml"),
        ('uvicorn[standard]>=0.34; extra == "platform"', "uvicorn"),
        ('prometheus-client (>=0.20) ; extra == "platform"', "prometheus-client"),
        ('uv; extra == "platform"', "uv"),
    ],
)
def test_a_package_is_asked_for_by_its_whole_name(requirement: str, name: str) -> None:
    assert checks.named(requirement) == name
