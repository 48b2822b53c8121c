"""`make demo` when it does not come to its end: it says so by its exit code, and stops what it started, only that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from router.store import DataLock
from torpor.cli.platform import read_address

ROOT = Path(__file__).parents[1]
DEMO = [sys.executable, "-P", str(ROOT / "infra" / "demo.py")]
DATA = ROOT / ".cache" / "demo"
WITHIN = 300.0


def test_ctrl_c_stops_the_platform_that_the_demo_started() -> None:
    demo = subprocess.Popen(
        DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert demo.stdout is not None
    printed = ""
    while "== Deploy" not in printed:
        line = demo.stdout.readline()
        assert line, demo.communicate()
        printed += line
    found = read_address(DATA)
    assert found is not None
    assert found["url"] in printed
    os.killpg(demo.pid, signal.SIGINT)  # a terminal sends it to the command that runs, too
    rest, errors = demo.communicate(timeout=WITHIN)
    assert demo.returncode == 130
    assert rest.splitlines()[-1] == f"stopped {found['url']} (pid {found['pid']})"
    assert "Traceback" not in errors
    assert read_address(DATA) is None


def test_a_step_that_fails_ends_the_demo_and_what_another_runs_is_left_alone() -> None:
    lock = DataLock(DATA)  # as a platform of someone else's would hold it
    try:
        done = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN)
    finally:
        lock.close()
    assert done.returncode == 1
    assert f"uses {DATA} already" in done.stderr
    assert done.stderr.splitlines()[-1] == "the demo failed: torpor up exited with 3"
    assert "== Deploy" not in done.stdout
    assert "== Stop" not in done.stdout
