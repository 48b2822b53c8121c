"""The nine laws of a replica's life, as far as the core keeps them (law 8 is the launcher's, 7 the engine's too)."""

from __future__ import annotations

import pytest

from router.core import events as ev
from router.core.effects import Grant, Refuse, Stop
from tests.core.play import Play, grants, only, refusals, starts, stops
from torpor.errors import Conflict


def test_law_1_choosing_and_reserving_is_one_step() -> None:
    play = Play()
    play.deployed(concurrency=1)
    replica = play.awake()
    assert grants(play.want("a")) == ["a"]
    assert play.schedule.replicas[replica].in_flight == 1
    assert grants(play.want("b")) == []  # the slot was reserved before the first call's connection was even opened


def test_law_2_a_replica_with_a_call_in_flight_is_never_stopped_for_idleness() -> None:
    play = Play()
    play.deployed(idle_after=5)
    replica = play.awake()
    play.want("long")
    assert stops(play.later(1000)) == []
    play.tell(ev.Settled(replica))
    assert stops(play.later(4.9)) == []
    assert stops(play.later(0.2)) == [replica]


def test_law_2_a_lease_settled_twice_raises_and_changes_nothing() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    with pytest.raises(KeyError, match="settled twice"):
        play.tell(ev.Settled(replica))
    assert play.schedule.replicas[replica].in_flight == 0


def test_law_3_sleep_is_decided_in_the_step_and_not_by_an_earlier_read() -> None:
    play = Play()
    play.deployed()
    play.awake()
    idle_when_read = play.schedule.lines["e"].in_flight() == 0
    play.want("meanwhile")
    assert idle_when_read
    with pytest.raises(Conflict, match="1 calls or tasks running"):
        play.tell(ev.Slept("e"))


def test_law_4_many_callers_share_one_start() -> None:
    play = Play()
    play.deployed()
    first = starts([effect for i in range(50) for effect in play.want(f"c{i}")])
    assert len(first) == 1
    assert grants(play.tell(ev.Ready(first[0]))) == [f"c{i}" for i in range(50)]


def test_law_4_a_caller_who_leaves_does_not_cancel_the_start() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("a"))
    play.want("b")
    assert play.tell(ev.CallerLeft("e", "a")) == []
    assert play.tell(ev.CallerLeft("e", "b")) == []
    effects = play.tell(ev.Ready(replica))
    assert (grants(effects), stops(effects), play.state(replica)) == ([], [], "ready")
    assert grants(play.want("c")) == ["c"]


def test_law_5_ready_wakes_every_waiter_once() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("a"))
    play.want("b")
    assert grants(play.tell(ev.Ready(replica))) == ["a", "b"]
    play.later(1000)
    assert grants(play.effects) == ["a", "b"]


def test_law_5_an_exit_wakes_every_waiter_once() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("a"))
    play.want("b")
    assert refusals(play.tell(ev.Exited(replica, -9))) == {"a": "start_failed", "b": "start_failed"}
    assert refusals(play.later(5000)) == {}


def test_law_6_a_start_that_loses_to_a_stop_is_still_reaped() -> None:
    play = Play()
    play.deployed(start_within=10)
    [replica] = starts(play.want("a"))
    effects = play.later(10)
    assert refusals(effects) == {"a": "start_timeout"}
    assert only(Refuse, effects)[0].error.detail == {"log": ["its last line"]}
    assert stops(effects) == [replica]
    refused = only(Refuse, play.want("b"))[0].error
    assert (refused.code, refused.detail) == ("start_timeout", {"log": ["its last line"]}), "while it backs off"
    assert play.tell(ev.Ready(replica)) == []  # it came up after all: nobody is sent to it
    assert play.state(replica) == "stopping"
    play.tell(ev.Exited(replica, -15))
    assert replica not in play.schedule.replicas


def test_law_7_a_caller_who_left_is_not_granted() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("a"))
    play.want("b")
    play.tell(ev.CallerLeft("e", "a"))
    assert grants(play.tell(ev.Ready(replica))) == ["b"]
    assert play.schedule.replicas[replica].in_flight == 1


def test_law_8_a_stop_carries_the_time_until_the_kill() -> None:
    play = Play()
    play.deployed(idle_after=1, stop_within=3.5)
    replica = play.awake()
    assert only(Stop, play.later(1)) == [Stop(replica, 3.5)]


def test_law_9_shutdown_stops_admitting_refuses_the_queue_drains_and_stops() -> None:
    play = Play()
    play.deployed("run", drain_within=30)
    play.deployed("wait")
    replica = play.awake("run")
    play.want("running", "run")
    [starting] = starts(play.want("waiting", "wait"))
    effects = play.tell(ev.ShutDown())
    assert refusals(effects) == {"waiting": "shutting_down"}
    assert stops(effects) == [starting]
    assert refusals(play.want("late", "run")) == {"late": "shutting_down"}
    assert stops(play.tell(ev.Settled(replica))) == [replica]


def test_law_9_what_does_not_drain_in_time_is_cut_off() -> None:
    play = Play()
    play.deployed(drain_within=30)
    replica = play.awake()
    play.want("endless")
    play.tell(ev.ShutDown())
    assert stops(play.later(29)) == []
    assert stops(play.later(1)) == [replica]


def test_a_call_that_waited_for_the_start_is_cold_and_the_next_is_warm() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("a"))
    play.now += 0.2
    [cold] = only(Grant, play.tell(ev.Ready(replica)))
    [warm] = only(Grant, play.want("b"))
    assert (cold.cold, round(cold.parked, 6), warm.cold, warm.parked) == (True, 0.2, False, 0.0)
