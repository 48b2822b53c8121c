"""`sleep = "pause"` on a real engine: a replica that is frozen, goes on, dies frozen, and goes unused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.cells import Cells, cells, until
from tests.containers.engine import asked


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, engine: Path, host_image: str) -> Iterator[Cells]:
    with cells(tmp_path_factory.mktemp("pauses"), engine, host_image) as made:
        yield made


def states(platform: Cells, name: str) -> list[str]:
    return sorted(each["State"] for each in platform.containers(name))


def paused(platform: Cells, name: str) -> bool:
    return "paused" in states(platform, name)


def test_an_idle_replica_is_frozen_and_goes_on_with_what_it_had(platform: Cells) -> None:
    platform.deploy("idle", sleep="pause", idle_after=0.2)
    assert platform.inside("idle", "import sys; sys.kept = 'here'; out = 1") == 1
    until(lambda: paused(platform, "idle"))
    view = platform.view("idle")
    assert (view["state"], [each["state"] for each in view["replicas"]]) == ("asleep", ["paused"])
    assert (view["rung"]["name"], view["rung"]["ladder"]) == ("pause", ["warm", "pause", "stop"])
    assert "its replica was frozen" in view["rung"]["why"]
    answer = platform.call("idle", "import sys; out = sys.kept")
    assert (answer.json(), answer.headers["X-Torpor-Cold-Start"]) == ("here", "true")
    assert "resume" in answer.headers["Server-Timing"]


def test_sleep_returns_when_it_is_frozen_and_calls_meet_it_in_any_moment(platform: Cells) -> None:
    platform.deploy("moments", sleep="pause", idle_after=0.05)
    one = platform.inside("moments", "import os; out = os.getppid(), os.getpid()")
    for _ in range(8):
        platform.sleep("moments")
        assert paused(platform, "moments")
        asked_for = [platform.calling("moments", "import os; out = os.getppid(), os.getpid()") for _ in range(4)]
        assert [each.result().json() for each in asked_for] == [one] * 4, "one replica, of one start"
    assert platform.view("moments")["last_error"] is None


def test_one_that_is_killed_while_it_is_frozen_costs_no_call(platform: Cells) -> None:
    platform.deploy("killed", sleep="pause")
    platform.inside("killed", "out = 1")
    platform.sleep("killed")
    [found] = [each for each in platform.containers("killed") if each["State"] == "paused"]
    asked(platform.engine, "POST", f"/containers/{found['Id']}/kill")
    until(lambda: platform.view("killed")["replicas"] == [])
    assert "died" in platform.view("killed")["rung"]["why"]
    assert platform.inside("killed", "out = 2") == 2


def test_one_that_is_not_needed_for_keep_for_goes(platform: Cells) -> None:
    platform.deploy("unused", sleep="pause", keep_for=1)
    platform.inside("unused", "out = 1")
    platform.sleep("unused")
    assert "it stops in 1 s" in platform.view("unused")["rung"]["next"]
    until(lambda: platform.view("unused")["replicas"] == [])
    assert platform.view("unused")["rung"]["why"] == "its frozen replica went: it was not needed for keep_for"
    until(lambda: not {"running", "paused"} & {*states(platform, "unused")})
    assert platform.inside("unused", "out = 2") == 2


def test_a_newer_revision_and_the_platforms_end_leave_nothing_frozen(platform: Cells) -> None:
    platform.deploy("newer", sleep="pause")
    platform.inside("newer", "out = 1")
    platform.sleep("newer")
    platform.deploy("newer", sleep="pause", idle_after=100)
    until(lambda: not paused(platform, "newer"))
    platform.sleep("newer")
    assert paused(platform, "newer")  # `torpor down` ends it: the fixture looks
