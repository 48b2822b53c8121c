"""SIGHUP where there is no certificate to read again: the end of the terminal, and nothing else."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.running import TORPOR, WITHIN, Running, clean_environment, running
from torpor.cli.platform import down, read_address


@contextmanager
def on_a_terminal(folder: Path, *front: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`torpor up` as a shell of a terminal has it, and the terminal's other end. It has started."""
    terminal, end = pty.openpty()
    line = ["setsid", "--ctty", *front, TORPOR, "up", "--port", "0"]
    env = clean_environment(folder)
    router = subprocess.Popen(line, env=env, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    os.close(end)
    try:
        assert router.stdout is not None
        assert router.stdout.readline().startswith("torpor listens on ")
        yield router, terminal
    finally:
        router.kill()
        router.communicate()


def test_a_router_without_a_terminal_stays(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        os.kill(platform.pid, signal.SIGHUP)
        assert platform.told("ls", "--json").strip() == "[]"
        found = read_address(platform.data)
        assert found is not None
        assert found["pid"] == platform.pid


def test_the_end_of_its_terminal_is_an_orderly_end(tmp_path: Path) -> None:
    with on_a_terminal(tmp_path) as (router, terminal):
        os.close(terminal)
        assert router.wait(WITHIN) == 0
    assert read_address(tmp_path / "data") is None


def test_nohup_is_heeded(tmp_path: Path) -> None:
    with on_a_terminal(tmp_path, "nohup") as (router, terminal):
        os.close(terminal)
        found = read_address(tmp_path / "data")
        assert found is not None
        env = clean_environment(tmp_path) | {"TORPOR_URL": found["url"]}
        assert Running(found["url"], found["pid"], tmp_path / "data", env).told("ls", "--json").strip() == "[]"
        down(tmp_path / "data")
        assert router.wait(WITHIN) == 0
