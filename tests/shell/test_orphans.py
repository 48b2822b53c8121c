"""What a router that died left running: found and ended by the next, and nobody else's process with it."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.launch.orphans import born, forget, reap, remember, signal_group

PATIENCE = 20.0  # seconds until a process that should end is a failure

GROUP = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "3600"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


class Leader:
    """A session leader with a child; a replica as the kernel sees it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GROUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())
        self.pid = self.process.pid

    def end(self) -> None:
        """Only itself, as one does that sees its router's end."""
        self.process.kill()
        self.process.wait()

    def clear(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def leader() -> Iterator[Leader]:
    made = Leader()
    yield made
    made.clear()
    if born(made.child) is not None:
        os.kill(made.child, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether a process has ended, or ends soon: it may have been killed just now, and is not ours to reap."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], PATIENCE)[0])
    finally:
        os.close(watched)


def test_what_was_written_down_is_ended_with_its_children_and_the_folder_emptied(
    tmp_path: Path, leader: Leader
) -> None:
    remember(tmp_path, "e-1-a", leader.pid)
    (tmp_path / "e-1-a.sock").touch()
    (tmp_path / "e-1-a").mkdir()
    (tmp_path / "e-1-a" / "metrics.db").touch()
    assert reap(tmp_path) == [leader.pid]
    assert leader.process.wait() == -signal.SIGKILL
    assert gone(leader.child)
    assert list(tmp_path.iterdir()) == []


def test_children_of_a_leader_that_has_ended_by_itself_are_ended_too(tmp_path: Path, leader: Leader) -> None:
    remember(tmp_path, "e-1-a", leader.pid)
    leader.end()
    assert born(leader.child) is not None
    assert reap(tmp_path) == [leader.pid]
    assert gone(leader.child)


def test_what_was_forgotten_is_let_alone(tmp_path: Path, leader: Leader) -> None:
    remember(tmp_path, "e-1-a", leader.pid)
    forget(tmp_path, "e-1-a")
    forget(tmp_path, "e-1-a")
    assert reap(tmp_path) == []
    assert leader.process.poll() is None


def test_a_process_that_has_got_the_pid_since_is_let_alone(tmp_path: Path, leader: Leader) -> None:
    remember(tmp_path, "e-1-a", leader.pid)
    path = tmp_path / "e-1-a.pid"
    boot, _, ticks = json.loads(path.read_text())["born"].partition("/")
    for other in (f"{boot}/{int(ticks) - 1}", f"another-boot/{ticks}", None):
        path.write_text(json.dumps({"pid": leader.pid, "born": other}))
        assert reap(tmp_path) == []
    assert leader.process.poll() is None


def test_a_group_of_another_boot_is_let_alone_when_its_leader_is_gone(tmp_path: Path, leader: Leader) -> None:
    leader.end()
    (tmp_path / "e-1-a.pid").write_text(json.dumps({"pid": leader.pid, "born": "another-boot/1"}))
    assert reap(tmp_path) == []
    assert born(leader.child) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', "null", '{"born": "a", "pid": null}'])
def test_a_file_that_says_nothing_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "e-1-a.pid").write_text(text)
    (tmp_path / "e-1-b.part").write_text(text)
    assert reap(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_cannot_be_written_down_is_told_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        remember(tmp_path / "nowhere", "e-1-a", os.getpid())
    assert "is not written down" in caplog.text


def test_a_signal_reaches_a_process_that_leads_no_group_yet(leader: Leader) -> None:
    with subprocess.Popen(["sleep", "3600"]) as follower:
        with pytest.raises(ProcessLookupError):
            os.killpg(follower.pid, 0)
        signal_group(follower.pid, signal.SIGTERM)
        assert follower.wait() == -signal.SIGTERM
    signal_group(follower.pid, signal.SIGTERM)
    signal_group(leader.pid, signal.SIGTERM)
    assert leader.process.wait() == -signal.SIGTERM
    assert gone(leader.child)


def test_a_birth_is_the_same_whenever_it_is_asked_for_and_a_zombie_has_none() -> None:
    assert born(os.getpid()) == born(os.getpid()) != born(1)
    with subprocess.Popen(["true"]) as short:
        os.waitid(os.P_PID, short.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{short.pid}").exists()
        assert born(short.pid) is None
    assert born(short.pid) is None
