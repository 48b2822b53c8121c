"""Traps that others fell into, as far as a step of the schedule shows them: see docs/traps.md."""

from __future__ import annotations

import pytest

from router.core import events as ev
from tests.core.play import Play, grants, refusals, starts, stops
from torpor.errors import Conflict


def test_trap_6_sleep_and_a_new_call_are_decided_by_one_writer_and_callers_share_one_start() -> None:
    play = Play()
    play.deployed()
    assert len(starts([effect for k in range(20) for effect in play.want(f"c{k}")])) == 1
    [replica] = play.schedule.replicas
    play.tell(ev.Ready(replica))
    with pytest.raises(Conflict):
        play.tell(ev.Slept("e"))
    assert play.state(replica) == "ready"


def test_trap_7_a_burst_around_the_wake_is_answered_whole() -> None:
    play = Play()
    play.deployed()
    effects = [effect for k in range(50) for effect in play.want(f"before{k}")]
    [replica] = starts(effects)
    effects += play.tell(ev.Ready(replica))
    effects += [effect for k in range(50) for effect in play.want(f"after{k}")]
    assert (len(grants(effects)), refusals(effects)) == (100, {})


def test_trap_9_what_is_on_its_way_out_gets_no_call() -> None:
    play = Play()
    play.deployed()
    old = play.awake()
    play.want("running")
    play.deployed(revision=2)
    assert play.state(old) == "draining"
    effects = play.want("next")
    assert (grants(effects), len(starts(effects))) == ([], 1)
    assert stops(play.tell(ev.Settled(old))) == [old]


def test_trap_10_a_long_patience_of_callers_does_not_make_a_stop_slow() -> None:
    play = Play()
    play.deployed(queue_within=7200, start_within=7200, drain_within=5)
    replica = play.awake()
    play.want("running")
    play.deployed(revision=2)
    assert stops(play.later(4.9)) == []
    assert stops(play.later(0.2)) == [replica]


def test_trap_12_a_parked_call_is_granted_in_the_step_that_hears_of_readiness() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("call"))
    assert grants(play.later(3)) == []
    assert grants(play.tell(ev.Ready(replica))) == ["call"]


def test_trap_15_a_model_that_loads_for_half_an_hour_is_let_load_by_a_setting_of_its_own() -> None:
    play = Play()
    play.deployed(start_within=1800, queue_within=1800, idle_after=1, drain_within=1)
    [replica] = starts(play.want("call"))
    assert stops(play.later(1795)) == []
    assert grants(play.tell(ev.Ready(replica))) == ["call"]


def test_trap_22_what_is_ready_answers_while_another_loads() -> None:
    play = Play(memory=1 << 30)
    play.deployed("a")
    play.awake("a")
    play.deployed("b")
    assert len(starts(play.want("loads", "b"))) == 1
    assert grants(play.want("at once", "a")) == ["at once"]


def test_trap_23_idleness_counts_from_the_end_of_the_last_call() -> None:
    play = Play()
    play.deployed(idle_after=10)
    replica = play.awake()
    play.want("long")
    assert stops(play.later(100)) == []
    play.tell(ev.Settled(replica))
    assert stops(play.later(9.9)) == []
    assert stops(play.later(0.2)) == [replica]


def test_trap_23_a_full_queue_is_429_and_not_a_hang() -> None:
    play = Play()
    play.deployed(max_queue=1)
    play.want("waits")
    assert refusals(play.want("one more")) == {"one more": "queue_full"}
