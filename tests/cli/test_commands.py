"""Every command about endpoints, against a real platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Torpor
from tests.conftest import DEPLOYED
from tests.system.running import Running
from torpor.errors import BY_CODE, TorporError

SERVICE = (
    "import bentoml\n\n@bentoml.service\nclass Own:\n    @bentoml.api\n    def one(self) -> int:\n        return 1\n"
)


def done(torpor: Torpor, *arguments: str) -> str:
    """What a command that has to succeed prints."""
    result = torpor(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(torpor: Torpor, *arguments: str) -> Any:
    return json.loads(done(torpor, *arguments, "--json"))


def test_ls_and_show_tell_the_same_to_people_and_to_programs(torpor: Torpor) -> None:
    done(torpor, "wake", "deployed")
    (listed,) = document(torpor, "ls")
    shown = document(torpor, "show", "deployed")
    assert listed["name"] == shown["name"] == "deployed"
    title, row = done(torpor, "ls").splitlines()
    assert title.split()[:3] == ["NAME", "STATE", "BENTO"]
    assert row.split()[:3] == ["deployed", "awake", shown["bento"]]
    text = done(torpor, "show", "deployed")
    assert shown["rung"]["name"] == "warm"
    for expected in (shown["url"], shown["replicas"][0]["id"], "scaled", "idle_after", "[warm] -> ", " -> stop, since"):
        assert expected in text


def test_sleep_and_wake_return_when_it_is_so(torpor: Torpor) -> None:
    assert done(torpor, "sleep", "deployed", "--force") == "deployed is asleep\n"
    assert document(torpor, "sleep", "deployed")["replicas"] == []
    assert done(torpor, "wake", "deployed").startswith("deployed is awake: fork ")
    (replica,) = document(torpor, "wake", "deployed")["replicas"]
    assert replica["state"] == "ready"


def test_logs_are_lines_after_their_replicas_id(torpor: Torpor) -> None:
    done(torpor, "sleep", "deployed", "--force")
    (replica,) = document(torpor, "wake", "deployed")["replicas"]
    assert f"{replica['id']} started" in done(torpor, "logs", "deployed", "-n", "9").splitlines()
    lines = [json.loads(line) for line in done(torpor, "logs", "deployed", "-n", "9", "--json").splitlines()]
    assert {"replica": replica["id"], "line": "started"} in lines
    assert done(torpor, "logs", "deployed", "--tail", "0") == ""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("scaled", "--json", '{"values": [1, 2], "scale": 2}'), b"[2.0, 4.0]\n"),
        (("scaled", "-a", "values=[1]", "-a", "scale=3"), b"[3.0]\n"),
        (("total", "--json", "[1, 2]"), b"3\n"),
        (("shout", "--json", '"abc"'), b"ABC"),
        (("words", "-a", "text=one two"), b"one two "),
        (("octets", "--json", '{"upto": 3}'), b"\x00\x01\x02"),
        (("rest", "-a", "first=1", "-a", "more=text"), b'{"first": 1, "more": "text"}\n'),
        (("named", "-f", "file=@{one}", "-a", "name=123"), b"123: one"),
        (("join", "-f", "parts=@{one}", "-f", "parts={two}"), b"one\xff\x00"),
        (("backwards", "-f", "@{two}"), b"\x00\xff"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_calls_answer_is_all_of_stdout(
    torpor: Torpor, tmp_path: Path, arguments: tuple[str, ...], answer: bytes
) -> None:
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"\xff\x00")
    given = [each.format(one=tmp_path / "one", two=tmp_path / "two") if "@{" in each or "={" in each else each
             for each in arguments]  # fmt: skip
    result = torpor("call", "deployed", *given)
    assert (result.exit_code, result.stdout_bytes) == (0, answer), result.output
    assert result.stderr == ""


def test_a_service_is_deployed_by_folder_by_module_and_by_tag_and_built_once(
    torpor: Torpor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "service.py").write_text(SERVICE)
    monkeypatch.chdir(tmp_path)
    result = torpor("deploy", "own", "--name", "own", "--json", "--set", "idle_after=9", "--env", "A=b")
    first = json.loads(result.stdout)
    assert (first["revision"], first["settings"]["idle_after"]) == (1, 9)
    phases = [line.split()[0] for line in result.stderr.splitlines()]
    assert (phases[0], phases[-1]) == ("building", "starting")
    assert done(torpor, "deploy", "own", "--name", "own") == (
        f"own (revision 2, {first['bento']}) answers at {first['url']}\n"
    )
    assert document(torpor, "deploy", first["bento"], "--name", "own")["revision"] == 3
    assert document(torpor, "deploy", "own.service:Own", "--name", "own")["revision"] == 4
    assert done(torpor, "call", "own", "one") == "1\n"
    assert done(torpor, "rm", "own") == "removed own\n"
    assert [view["name"] for view in document(torpor, "ls")] == ["deployed"]


FAULTS = [
    (("show", "nosuch"), 3, "no endpoint is called 'nosuch'\nsee `torpor ls`"),
    (("show", "No such"), 3, "no endpoint is called 'No such'"),
    (("wake", "nosuch"), 3, "'nosuch'"),
    (("sleep", "nosuch"), 3, "'nosuch'"),
    (("rm", "nosuch"), 3, "'nosuch'"),
    (("logs", "nosuch"), 3, "'nosuch'"),
    (("logs", "deployed", "-n", "-1"), 3, "tail='-1'"),
    (("deploy", str(DEPLOYED), "--name", "Bad_Name"), 3, "cannot be an endpoint's name"),
    (
        ("deploy", str(DEPLOYED), "--name", "new", "--set", "idle_afte=1", "--set", "max_queue=x", "--port", "0"),
        3,
        "settings.idle_afte is not a setting; did you mean idle_after?; settings.max_queue = 'x' has to be int; "
        "settings.port = 0 has to be from 1 to 65535\nsee docs/config.md",
    ),
    (("--url", "localhost", "ls"), 3, "not a platform's address"),
    (("--url", "http://127.0.0.1:9", "ls"), 6, "nothing answers"),
    (("--url", "http://127.0.0.1:9", "deploy", "/nowhere", "--name", "new"), 6, "nothing answers"),  # before a build
]


@pytest.mark.parametrize(("arguments", "exit_code", "says"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_is_two_lines_and_an_exit_code_of_its_class_and_changes_nothing(
    torpor: Torpor, arguments: tuple[str, ...], exit_code: int, says: str
) -> None:
    told = torpor(*arguments)
    assert (told.exit_code, told.stdout) == (exit_code, "")
    message = [line for line in told.stderr.splitlines() if not line.startswith("building ")]
    assert len(message) == 2
    assert says in "\n".join(message)
    assert [view["name"] for view in document(torpor, "ls")] == ["deployed"]


@pytest.mark.parametrize("arguments", [FAULTS[0][0], FAULTS[-1][0]])
def test_with_json_a_fault_is_one_object_on_stdout(torpor: Torpor, arguments: tuple[str, ...]) -> None:
    told, body = torpor(*arguments), json.loads(torpor(*arguments, "--json").stdout)
    assert told.stderr.endswith(body["error"] + "\n")
    assert issubclass(BY_CODE[body["code"]], TorporError)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("nosuch",), 3, "deployed has no method 'nosuch'\nit has backwards, "),
        (("scaled", "--json", "{"), 3, "--json is not JSON"),
        (("scaled", "-a", "vlaues=[1]"), 3, "unknown: vlaues\nscaled takes values, scale"),
        (("scaled", "-a", "values=x"), 3, "values: Value error, could not convert string to float: 'x'"),
        (("digest", "-f", "@/nowhere"), 3, "/nowhere is not a file that can be read"),
        (("status", "-a", "code=418"), 3, "the endpoint answered 418: short and stout"),
        (("status", "-a", "code=507"), 5, "the endpoint answered 507"),
        (("wait", "-a", "seconds=600", "--answer-within", "0.2"), 5, "no answer within 0.2 s"),
        (("scaled", "-a", "values"), 2, "'values' is not KEY=VALUE"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_call_that_fails_leaves_stdout_empty(
    torpor: Torpor, arguments: tuple[str, ...], exit_code: int, says: str
) -> None:
    result = torpor("call", "deployed", *arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert says in result.stderr


def test_a_start_that_fails_is_told_with_the_services_own_last_lines(torpor: Torpor, flag: Path) -> None:
    done(torpor, "sleep", "deployed", "--force")
    flag.write_text("broken")
    try:
        told = torpor("wake", "deployed")
        assert told.exit_code == 4
        first, *_, last = told.stderr.splitlines()
        assert "could not start: RuntimeError: told not to start" in first
        assert last == "  | RuntimeError: told not to start"
        shown = document(torpor, "show", "deployed")
        assert (shown["state"], "told not to start" in shown["last_error"]) == ("failed", True)
        assert "last error" in done(torpor, "show", "deployed")
    finally:
        flag.unlink()
        while torpor("wake", "deployed").exit_code == 4:
            continue  # until the router tries a start again


def test_an_empty_model_store_is_an_empty_list(platform: Running) -> None:
    assert platform.told("models", "--json") == "[]\n"


def test_the_help_lists_the_commands_and_the_exit_codes(torpor: Torpor) -> None:
    text = " ".join(done(torpor, "--help").split())
    commands = ("up", "down", "deploy", "ls", "show", "call", "wake", "sleep", "logs", "rm", "models", "config")
    for command in commands:
        assert f" {command} " in text
        assert "Usage:" in done(torpor, command, "--help")
    assert " export " in text
    for code in ("3 the call", "4 nothing ran", "5 it may have run", "6 no platform answers", "130 Ctrl-C"):
        assert code in text
