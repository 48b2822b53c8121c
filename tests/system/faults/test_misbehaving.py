"""A replica that lives and does not do what a replica should."""

from __future__ import annotations

import os
import signal

import httpx

from tests.system import handmade
from tests.system.faults.watching import API, PATIENCE, Victims, nothing_is_left, until
from torpor.chaos.look import alive

MIB = 1 << 20


def deploy_again(victims: Victims, **settings: object) -> None:
    """The next revision of `deep`, with these settings over the usual ones."""
    view = victims.view("deep")
    body = {
        "name": "deep",
        "bento": view["bento"],
        "settings": {key: value for key, value in view["settings"].items() if value is not None} | settings,
        "env": {"VICTIM_MODE": str(victims.mode)},
    }
    told = list(handmade.events(victims.url, body))
    assert told[-1]["event"] == "deployed", told


def ended(*pids: int) -> None:
    until(lambda: not any(map(alive, pids)))


def test_a_replica_that_never_becomes_ready_is_ended_after_start_within_and_its_callers_are_told(
    victims: Victims,
) -> None:
    deploy_again(victims, start_within=3.0)
    victims.answered("deep")
    for mode in ("unready", "hang"):
        victims.sleep("deep")
        victims.mode.write_text(mode)
        waiting = [victims.calling("deep", "hello", name="a") for _ in range(3)]
        pid = victims.replica("deep", "starting")
        for each in waiting:
            answer = each.result(PATIENCE)
            assert (answer.status_code, answer.json()["code"]) == (503, "start_timeout")
        ended(pid)
        victims.mode.unlink()
        deploy_again(victims, start_within=30 if mode == "hang" else 3.0)
    nothing_is_left(victims)


def test_an_answer_that_is_garbage_is_502_and_its_lease_is_given_back(victims: Victims) -> None:
    answer = victims.call("deep", "garble")
    assert (answer.status_code, answer.json()["code"]) == (502, "bad_answer")
    assert victims.call("deep", "hello", name="a").text == "hello a"
    nothing_is_left(victims)


def test_a_replica_that_closes_its_socket_while_alive_is_ended_and_the_next_call_has_another(victims: Victims) -> None:
    first = victims.call("deep", "hang_up")
    pid = victims.replica("deep") if first.status_code == 200 else 0
    running = victims.calling("deep", "nap", seconds=1)  # on the connection that is still open, if there is one
    assert victims.call("deep", "hello", name="a").text == "hello a"
    assert running.result(PATIENCE).status_code == 200
    assert victims.call("deep", "hello", name="a").text == "hello a"
    until(lambda: victims.replica("deep") != pid)
    if pid:
        until(lambda: not alive(pid))
    nothing_is_left(victims)


def test_a_replica_that_ignores_term_is_killed_after_stop_within(victims: Victims) -> None:
    pid = int(victims.call("deep", "deafen").text)
    os.kill(pid, signal.SIGTERM)
    assert victims.call("deep", "hello", name="a").text == "hello a"
    view = victims.sleep("deep").json()
    assert (view["state"], view["replicas"]) == ("asleep", [])
    assert not alive(pid)
    nothing_is_left(victims)


def test_a_replica_that_leaks_is_replaced_at_its_limit_while_its_calls_end(victims: Victims) -> None:
    deploy_again(victims, memory_limit=200 * MIB)
    leaks = victims.replica("deep")
    running = victims.calling("deep", "nap", seconds=5)
    victims.busy("deep")
    assert victims.call("deep", "leak", mib=240).status_code == 200
    until(lambda: victims.view("deep")["replicas"][0]["state"] == "draining")
    assert victims.call("deep", "hello", name="a").text == "hello a"
    assert victims.replica("deep") != leaks
    assert running.result(PATIENCE).json() == 5
    until(lambda: not alive(leaks))
    assert "more than its memory_limit of 200 MiB" in (victims.data / "router.log").read_text()
    deploy_again(victims, memory_limit=0)
    nothing_is_left(victims)


def test_a_deploy_whose_first_replica_takes_more_than_its_limit_is_refused_and_leaves_the_revision_before(
    victims: Victims,
) -> None:
    body = {"name": "deep", "bento": "victim:1", "settings": {"memory_limit": MIB}, "env": {"VICTIM_MODE": "none"}}
    before = victims.view("deep")["revision"]
    told = list(handmade.events(victims.url, body))[-1]
    assert (told["event"], told["code"]) in (("error", "bad_request"), ("error", "start_failed")), told
    assert "its memory_limit of 1 MiB" in told["error"]
    assert victims.view("deep")["revision"] == before
    nothing_is_left(victims)


def test_what_a_replica_forks_is_counted_with_it_and_ends_with_it_however_it_ends(victims: Victims) -> None:
    for end in ("sleep", "kill"):
        pids = victims.call("deep", "fork", mib=64).json()
        assert all(map(alive, pids))
        until(lambda: sum(each["memory"] or 0 for each in victims.view("deep")["replicas"]) > 64 * MIB)
        if end == "sleep":
            victims.sleep("deep")
        else:
            os.kill(victims.replica("deep"), signal.SIGKILL)
        ended(*pids)
        victims.answered("deep")
    nothing_is_left(victims)


def test_a_caller_who_leaves_frees_its_slot_when_the_method_has_ended(victims: Victims) -> None:
    """With more callers than anybody reads the answers of."""
    for endpoint in ("deep", "kept"):
        for _ in range(8):
            try:
                url = f"{victims.url}/endpoints/{endpoint}/nap"
                httpx.post(url, json={"seconds": 0.5}, timeout=httpx.Timeout(5, read=0.05))
            except httpx.ReadTimeout:
                continue
    until(
        lambda: all(view["in_flight"] == 0 for view in httpx.get(f"{victims.url}{API}/endpoints").json()["endpoints"])
    )
    nothing_is_left(victims)
