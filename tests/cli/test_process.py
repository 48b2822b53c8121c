"""`torpor` as a process: starting and stopping the platform, pipes that close, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.minilm import HOME
from tests.system.running import TORPOR, WITHIN, Running, clean_environment
from torpor.cli.platform import read_address
from torpor.cli.platform import running as running_still

FAULTY = 'prot = 1\nmax_body = "x"\n\n[settings]\nidle_after = -1\nmax_queu = 2\n'
FOUND = (
    "prot is not a key; did you mean port?",
    "max_body = 'x' has to be int",
    "settings.idle_after = -1 has to be from 0 to 604800",
    "settings.max_queu is not a setting; did you mean max_queue?",
    "$TORPOR_LOG_LEVEL = 'loud' has to be one of debug, info, warning, error",
)


def ran(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TORPOR, *arguments], env=env, capture_output=True, text=True, timeout=WITHIN)


@pytest.mark.parametrize("command", [("config", "--json"), ("up",), ("up", "--detach")], ids=" ".join)
def test_all_faults_of_a_configuration_are_told_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    env = clean_environment(tmp_path) | {"TORPOR_LOG_LEVEL": "loud"}
    config = tmp_path / "torpor.toml"
    config.write_text(FAULTY)
    told = ran(env, *command, "--config", str(config))
    assert told.returncode == 3
    text = json.loads(told.stdout)["error"] if "--json" in command else told.stderr
    assert [fault for fault in FOUND if fault not in text] == []
    assert str(config) in text
    assert not (tmp_path / "data" / "torpor.json").exists()


@pytest.mark.parametrize("detached", [(), ("--detach",)], ids=["here", "detached"])
@pytest.mark.parametrize("data", ["/etc/passwd", "/proc/x", "/dev/null/x"])
def test_a_data_folder_that_cannot_be_used_is_told_in_two_lines(
    tmp_path: Path, data: str, detached: tuple[str, ...]
) -> None:
    told = ran(clean_environment(tmp_path), "up", *detached, "--data", data)
    what, remedy = told.stderr.splitlines()
    assert (told.returncode, told.stdout) == (3, "")
    assert what.startswith(f"the data folder {data} cannot be used: ")
    assert remedy == "name another with --data"


def test_the_configuration_is_printed_as_it_would_be_used(tmp_path: Path) -> None:
    env = clean_environment(tmp_path) | {"TORPOR_PORT": "7411", "TORPOR_IDLE_AFTER": "5"}
    config = tmp_path / "torpor.toml"
    config.write_text('port = 7412\ndomain = "models.example"\n')
    shown = json.loads(ran(env, "config", "--config", str(config), "--json").stdout)
    assert (shown["port"], shown["domain"], shown["settings"]["idle_after"]) == (7411, "models.example", 5)
    assert shown["data"] == str(tmp_path / "data")


def test_up_returns_when_it_answers_and_down_when_it_has_ended(tmp_path: Path) -> None:
    env = clean_environment(tmp_path)
    data = tmp_path / "elsewhere"
    (tmp_path / "torpor.toml").write_text(f'data = "{data}"\nport = 0\n')
    del env["TORPOR_DATA"]
    up = ran(env, "up", "--detach", "--json", "--config", str(tmp_path / "torpor.toml"))
    assert up.returncode == 0, up.stderr
    started = json.loads(up.stdout)
    env["TORPOR_DATA"] = str(data)
    try:
        assert read_address(data) == started
        assert ran(env, "ls", "--json").stdout == "[]\n"  # found by its data folder
        again = ran(env, "up", "--detach", "--port", "0")
        assert (again.returncode, again.stderr.splitlines()[1]) == (
            3,
            f"stop it with `torpor down --data {data}`, or use another --data",
        )
        other = ran(env, "up", "--data", str(tmp_path / "other"), "--port", started["url"].rpartition(":")[2])
        assert other.returncode == 3
        assert "cannot be had" in other.stderr
        assert "choose another port" in other.stderr
    finally:
        down = ran(env, "down", "--json")
    assert json.loads(down.stdout) == started
    assert not running_still(started)
    none = ran(env, "down")
    assert (none.returncode, none.stderr) == (3, f"no platform runs on {data}\nname its folder with --data\n")


def test_a_platform_that_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    env = clean_environment(tmp_path)
    assert ran(env, "up", "--detach", "--port", "0").returncode == 0
    found = read_address(tmp_path / "data")
    assert found is not None
    os.kill(found["pid"], signal.SIGKILL)
    until(lambda: not running_still(found))
    assert ran(env, "down").returncode == 3
    assert ran(env, "ls").returncode == 6


def test_ctrl_c_ends_the_foreground_platform_as_down_does(tmp_path: Path) -> None:
    env = clean_environment(tmp_path)
    up = subprocess.Popen(
        [TORPOR, "up", "--port", "0"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert up.stdout is not None
    assert up.stdout.readline().startswith("torpor listens on http://127.0.0.1:")
    up.send_signal(signal.SIGINT)
    _, stderr = up.communicate(timeout=WITHIN)
    assert up.returncode == 0
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "command",
    [
        ("logs", "--follow", "deployed"),
        ("call", "deployed", "words", "--json", '{"text": "a b", "pause": 600}'),
    ],
    ids=" ".join,
)
def test_ctrl_c_ends_a_command_quietly(platform: Running, command: tuple[str, ...]) -> None:
    process = subprocess.Popen([TORPOR, *command], env=platform.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)  # it is at work
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=WITHIN)
    assert (process.returncode, stderr) == (130, b"")


def test_ctrl_c_in_a_deploy_leaves_nothing(platform: Running, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "import time, bentoml\n\n@bentoml.service\nclass Slow:\n"
        "    def __init__(self) -> None:\n        time.sleep(600)\n"
    )
    command = [TORPOR, "deploy", str(tmp_path), "--name", "slow"]
    deploy = subprocess.Popen(command, env=platform.env, stderr=subprocess.PIPE, text=True)
    assert deploy.stderr is not None
    until(lambda: deploy.stderr is not None and deploy.stderr.readline().startswith("starting"))
    deploy.send_signal(signal.SIGINT)
    _, stderr = deploy.communicate(timeout=WITHIN)
    assert (deploy.returncode, stderr) == (130, "")
    names = [view["name"] for view in json.loads(platform.told("ls", "--json"))]
    assert names == ["deployed"]


@pytest.mark.parametrize(
    "command",
    [
        "torpor ls --json | true",
        "torpor show deployed | head -n 1",
        "torpor call deployed octets -a upto=200 | head -c 1",
        """torpor call deployed words --json '{"text": "a b c d e f", "pause": 0.02}' | head -c 1""",
        """torpor call deployed digest -f @"$0" | true""",
    ],
)
def test_a_pipe_that_closes_is_no_error(platform: Running, command: str) -> None:
    done = subprocess.run(["sh", "-c", command, TORPOR], env=platform.env, capture_output=True, timeout=WITHIN)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_export_is_told_step_by_step_and_ends_with_one_document() -> None:
    env = os.environ | {"BENTOML_HOME": str(HOME)}
    HOME.mkdir(parents=True, exist_ok=True)
    done = ran(env, "export", "minilm", "--name", "minilm", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["card"]["precisions"] == ["fp32", "int8"]
    assert done.stderr.startswith("[1/6] ")
    assert "minilm" in ran(env, "models").stdout
    refused = ran(env, "export", "/nowhere", "--name", "new", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (3, "model_not_found")


def until(happened: Callable[[], bool], within: float = 20) -> None:
    give_up = time.monotonic() + within
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.01)
