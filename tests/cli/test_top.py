"""`torpor top`: what endpoints do now, once or again and again; and names completed by the shell."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from typing import Any

import pytest

from tests.cli.conftest import Torpor
from tests.system.running import TORPOR, WITHIN, Running
from torpor.cli.top import COLUMNS, cells, seen


def view(calls: int, **more: Any) -> dict[str, Any]:
    return {"name": "e", "state": "asleep", "calls": calls, "in_flight": 0, "parked": 0, "replicas": [],
            "rung": {"name": "stop"}, "template": None, **more}  # fmt: skip


def test_the_rate_is_of_the_calls_since_the_look_before() -> None:
    looks = iter([(10.0, [view(5)]), (12.0, [view(11)]), (13.0, [view(2)]), (14.0, [view(2), view(9, name="new")])])
    rows = seen(lambda: next(looks), 0.0)
    assert [[row["calls_per_second"] for row in next(rows)] for _ in range(4)] == [[None], [3.0], [0.0], [0.0, None]]


def test_a_row_tells_memory_rung_and_the_cold_start_of_the_newest_replica() -> None:
    old = {"id": "a", "memory": 1 << 20, "phases": {"fork": 9.0}, "since": 1.0}
    new = {"id": "b", "memory": None, "phases": {"fork": 0.01, "load": 0.02}, "since": 2.0}
    kept = {"id": "t", "state": "kept", "memory": 2 << 20}
    awake = view(1, replicas=[old, new], template=kept, rung={"name": "warm"})
    [row] = next(seen(lambda: (1.0, [awake]), 0.0))
    assert cells(row)[5:] == ["2", "3.0 MiB", "warm", "30.0 ms"]


def test_one_look_is_a_table_or_an_array(torpor: Torpor) -> None:
    torpor("wake", "deployed")
    title, line = torpor("top", "--once").stdout.splitlines()
    assert title.split("  ")[0] == COLUMNS[0]
    assert line.split()[:2] == ["deployed", "awake"]
    [row] = json.loads(torpor("top", "--once", "--json").stdout)
    while not row["memory"]:  # it is measured once a second
        [row] = json.loads(torpor("top", "--once", "--json").stdout)
    assert (row["name"], row["replicas"], row["memory"] > 1 << 20, row["cold_start"] > 0) == ("deployed", 1, True, True)
    assert torpor("--url", "http://127.0.0.1:9", "top", "--once").exit_code == 6


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=str)
def test_ctrl_c_ends_it_and_leaves_the_terminal_as_it_was(platform: Running, flags: tuple[str, ...]) -> None:
    master, terminal = pty.openpty()
    env = platform.env | {"TERM": "xterm", "COLUMNS": "160", "LINES": "20"}
    command = [TORPOR, "top", "--every", "0.1", *flags]
    process = subprocess.Popen(command, env=env, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    shown = b""
    while shown.count(b"deployed") < 2:
        shown += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while more := os.read(master, 4096):
            shown += more
    except OSError:  # the other end is closed
        os.close(master)
    assert (process.communicate(timeout=WITHIN)[1], process.returncode) == (b"", 130)
    assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l") == (0 if flags else 1), "the screen is given back"


@pytest.mark.parametrize(("shell", "says"), [("bash", "complete "), ("zsh", "#compdef torpor"), ("fish", "complete ")])
def test_a_shells_script_is_printed(torpor: Torpor, shell: str, says: str) -> None:
    result = torpor("completion", shell)
    assert (result.exit_code, says in result.stdout, "_TORPOR_COMPLETE" in result.stdout) == (0, True, True)


def completed(env: dict[str, str], words: str) -> list[str]:
    asked = {"_TORPOR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run([TORPOR], env=env | asked, capture_output=True, text=True, timeout=WITHIN)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_of_endpoints_are_completed_and_none_where_no_platform_answers(platform: Running) -> None:
    assert completed(platform.env, "torpor show dep") == ["deployed"]
    assert completed(platform.env, "torpor call x") == []
    assert completed(platform.env | {"TORPOR_URL": "http://127.0.0.1:9"}, "torpor show dep") == []
    assert "doctor" in completed(platform.env, "torpor d")
