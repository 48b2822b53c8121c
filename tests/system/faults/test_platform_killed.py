"""`kill -9` of the platform with calls parked and with calls running. (In mid-deploy: `test_control_plane_kill.py`.)"""

from __future__ import annotations

import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.system.faults.watching import PATIENCE, Victims, deploy, nothing_is_left, until
from tests.system.running import Running, running
from torpor.chaos.look import alive, processes, settle
from torpor.cli.platform import read_address


def killed(platform: Running, victims: Victims) -> None:
    os.kill(victims.pid, signal.SIGKILL)
    until(lambda: not alive(victims.pid))


def up_again(platform: Running, victims: Victims) -> Victims:
    """Started as its owner would, with a router's address left behind; what ran before has ended."""
    before = processes(victims.data)
    platform.told("up", "--detach", "--port", "0")
    assert [pid for pid in before if alive(pid)] == [], "an orphan runs on"
    found = read_address(victims.data)
    assert found is not None
    return replace(victims, url=found["url"], pid=found["pid"])


def test_trap_1_a_platform_killed_with_calls_parked_and_running_loses_none_of_its_endpoints(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as callers, running(tmp_path) as platform:
        victims = deploy(platform, tmp_path / "mode", callers)
        victims.sleep("deep")
        victims.mode.write_text("hang")
        calls = [victims.calling("deep", "hello", name="a") for _ in range(3)]
        calls += [victims.calling("kept", "nap", seconds=3)]
        victims.replica("deep", "starting")
        victims.busy("kept")
        killed(platform, victims)
        for each in calls:
            with pytest.raises(httpx.TransportError):
                each.result(PATIENCE)
        # What lost its router ends by itself, without another one.
        assert settle(lambda: list(processes(victims.data).values()), 15) == []
        victims.mode.unlink()
        victims = up_again(platform, victims)
        asleep = victims.view("deep")
        assert (asleep["state"], asleep["replicas"], asleep["in_flight"]) == ("asleep", [], 0)
        nothing_is_left(victims)
    assert settle(lambda: list(processes(victims.data).values()), 10) == []


def test_a_corrupt_database_is_refused_with_the_remedy_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path) as platform:
        env = platform.torpor
    [database] = [path for path in data.iterdir() if path.suffix == ".db"]
    with sqlite3.connect(database) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    whole = database.read_bytes()
    database.write_bytes(whole[:100] + b"\xff" * 2000 + whole[2100:])
    damaged = database.read_bytes()
    done = env("up", "--detach", "--port", "0")
    assert done.returncode != 0
    assert str(database) in done.stderr
    assert database.read_bytes() == damaged
    assert settle(lambda: list(processes(data).values()), 10) == []
    database.write_bytes(whole)
    assert env("up", "--detach", "--port", "0").returncode == 0
    assert env("down").returncode == 0


def test_a_second_platform_on_the_same_data_is_refused_and_the_first_serves_on(victims: Victims) -> None:
    """Of two that are started at once, too: one of them serves."""
    before = processes(victims.data)
    other = Running(victims.url, victims.pid, victims.data, dict(os.environ) | {"TORPOR_DATA": str(victims.data)})
    done = [each.result(PATIENCE) for each in [victims.callers.submit(other.torpor, "up", "-d", "--port", "0")] * 2]
    assert all(each.returncode != 0 for each in done)
    assert all("run" in each.stderr or "use" in each.stderr for each in done), done[0].stderr
    assert processes(victims.data).keys() == before.keys()
    nothing_is_left(victims)
