"""`kill -9` of a replica in each of its states, of the fork-server, of a template."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx
import pytest

from tests.system.faults.watching import PATIENCE, Victims, fork_server, nothing_is_left, until
from torpor.chaos.look import alive, written


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def code(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["code"]


def test_a_replica_killed_while_it_starts_is_told_to_its_callers_and_the_next_call_starts_another(
    victims: Victims,
) -> None:
    victims.sleep("deep")
    victims.mode.write_text("hang")
    waiting = [victims.calling("deep", "hello", name="a") for _ in range(3)]
    kill(victims.replica("deep", "starting"))
    for each in waiting:
        answer = each.result(PATIENCE)
        assert code(answer) == (503, "start_failed")
        assert "was killed by SIGKILL" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) >= 1
    nothing_is_left(victims)


@pytest.mark.parametrize("endpoint", ["deep", "kept"])
def test_a_replica_killed_while_idle_costs_no_call(victims: Victims, endpoint: str) -> None:
    victims.call(endpoint, "hello", name="a")
    kill(victims.replica(endpoint))
    answers = [victims.call(endpoint, "hello", name=str(k)) for k in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    nothing_is_left(victims)


@pytest.mark.parametrize("endpoint", ["deep", "kept"])
def test_a_replica_killed_in_mid_call_is_502_for_that_call_and_those_behind_it_are_served(
    victims: Victims, endpoint: str
) -> None:
    victims.call(endpoint, "hello", name="a")
    running = victims.calling(endpoint, "nap", seconds=60)
    kill(victims.busy(endpoint))
    assert code(running.result(PATIENCE)) == (502, "replica_died")
    assert victims.call(endpoint, "hello", name="b").status_code == 200
    nothing_is_left(victims)


def test_a_replica_killed_in_mid_stream_ends_the_stream_and_never_completes_it(victims: Victims) -> None:
    url = f"{victims.url}/endpoints/deep/count"
    with httpx.stream("POST", url, json={"upto": 10_000, "pause": 0.01}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "0"
        kill(victims.busy("deep"))
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    nothing_is_left(victims)


def test_a_replica_killed_while_it_drains_ends_the_sleep_that_waits_for_it(victims: Victims) -> None:
    victims.call("deep", "hello", name="a")
    running = victims.calling("deep", "nap", seconds=60)
    victims.busy("deep")
    asleep = victims.callers.submit(victims.sleep, "deep")
    kill(victims.replica("deep", "draining"))
    assert code(running.result(PATIENCE)) == (502, "replica_died")
    view = asleep.result(PATIENCE).json()
    assert (view["state"], view["replicas"], view["in_flight"]) == ("asleep", [], 0)
    nothing_is_left(victims)


def test_a_killed_fork_server_takes_its_replicas_along_and_the_next_call_makes_another(victims: Victims) -> None:
    for endpoint in ("deep", "kept"):
        victims.call(endpoint, "hello", name="a")
    running = [victims.calling(endpoint, "nap", seconds=60) for endpoint in ("deep", "kept")]
    pids = [victims.busy("deep"), victims.busy("kept")]
    first = fork_server(victims)
    kill(first)
    assert [code(each.result(PATIENCE)) for each in running] == [(502, "replica_died")] * 2
    until(lambda: not any(map(alive, pids)))  # its sockets close a moment before it is gone
    assert victims.call("deep", "hello", name="b").status_code == 200
    assert fork_server(victims) != first
    nothing_is_left(victims)


def test_a_fork_server_killed_under_starts_fails_them_and_the_next_call_makes_another(victims: Victims) -> None:
    victims.sleep("deep")
    victims.mode.write_text("hang")
    waiting = victims.calling("deep", "hello", name="a")
    victims.replica("deep", "starting")
    kill(fork_server(victims))
    assert code(waiting.result(PATIENCE)) == (503, "start_failed")
    nothing_is_left(victims)


def template(victims: Victims) -> int:
    """The pid of the process that `kept` sleeps with."""
    victims.call("kept", "hello", name="a")
    victims.sleep("kept")

    def found() -> int | None:
        view = victims.view("kept")["template"]
        return written(victims.data).get(view["id"]) if view and view["state"] == "kept" else None

    return int(until(found))


def test_a_killed_template_costs_no_call_and_another_is_made_at_the_next_sleep(victims: Victims) -> None:
    first = template(victims)
    kill(first)
    assert victims.call("kept", "hello", name="b").status_code == 200
    assert template(victims) != first
    nothing_is_left(victims)


def test_a_template_killed_under_its_replica_takes_it_along_and_the_next_call_is_served(victims: Victims) -> None:
    parent = template(victims)
    running = victims.calling("kept", "nap", seconds=60)
    replica = victims.busy("kept")
    kill(parent)
    assert code(running.result(PATIENCE)) == (502, "replica_died")
    until(lambda: not alive(replica))
    assert victims.call("kept", "hello", name="b").status_code == 200
    nothing_is_left(victims)
