"""The schedule's decisions beyond the nine laws."""

from __future__ import annotations

import pytest

from router.core import events as ev
from router.core.effects import Asleep, Refuse
from router.core.settings import Settings
from tests.core.play import Play, grants, only, refusals, starts, stops, verdicts
from torpor.errors import Conflict, EndpointNotFound


def test_an_unknown_endpoint_is_404_and_a_sleeping_one_never() -> None:
    play = Play()
    play.deployed()
    assert refusals(play.want("a", "nobody")) == {"a": "endpoint_not_found"}
    assert refusals(play.want("b")) == {}


def test_a_full_queue_is_refused_with_the_time_to_wait() -> None:
    play = Play()
    play.deployed(max_queue=2)
    play.want("a")
    play.want("b")
    [refusal] = only(Refuse, play.want("c"))
    assert (refusal.error.code, refusal.error.retry_after) == ("queue_full", 1.0)
    assert refusals(play.want("again", again=True)) == {}


def test_retry_after_is_the_measured_rest_of_the_start_and_at_most_120_seconds() -> None:
    play = Play()
    play.deployed(idle_after=1, max_queue=1)
    for took in (10.0, 10.0, 400.0):
        [replica] = starts(play.want("a"))
        play.now += took
        play.tell(ev.Ready(replica))
        play.tell(ev.Settled(replica))
        play.later(1)
        play.tell(ev.Exited(replica, 0))
    play.want("a")
    play.now += 300
    [refusal] = only(Refuse, play.want("b"))
    assert refusal.error.retry_after == 100.0
    play.now -= 300
    [refusal] = only(Refuse, play.want("b"))
    assert refusal.error.retry_after == 120.0


def test_a_parked_call_waits_no_longer_than_its_caller_and_its_endpoint_allow() -> None:
    play = Play()
    play.deployed(queue_within=50)
    play.want("patient", queue_within=900)
    play.want("hasty", queue_within=2)
    assert refusals(play.later(2)) == {"hasty": "queue_timeout"}
    assert refusals(play.later(47)) == {}
    assert refusals(play.later(1)) == {"patient": "queue_timeout"}


def test_a_failed_start_is_put_off_longer_each_time_and_a_call_after_that_tries_again() -> None:
    play = Play()
    play.deployed()
    for back_off in (1.0, 2.0, 4.0):
        [replica] = starts(play.want("a"))
        effects = play.tell(ev.Failed(replica, "ImportError: no module named frobnicate", ("line 1",)))
        [refusal] = only(Refuse, effects)
        assert refusal.error.retry_after == back_off
        assert refusal.error.detail == {"log": ["line 1"]}
        assert "frobnicate" in refusal.error.message
        assert stops(effects) == [replica]
        play.tell(ev.Exited(replica, 1))
        effects = play.want("early")
        assert (refusals(effects), starts(effects)) == ({"early": "start_failed"}, [])
        play.now += back_off
    [replica] = starts(play.want("a"))
    assert grants(play.tell(ev.Ready(replica))) == ["a"]
    assert play.schedule.lines["e"].error is None


def test_a_replica_whose_connection_broke_gets_no_more_calls() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    play.want("a")
    play.want("b")
    play.tell(ev.Settled(replica, broken=True))
    effects = play.want("c")
    assert grants(effects) == []
    [second] = starts(effects)
    assert stops(play.tell(ev.Settled(replica))) == [replica]
    assert grants(play.tell(ev.Ready(second))) == ["c"]


def test_the_lease_of_a_dead_replica_is_counted_until_it_is_settled() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    play.want("a")
    play.tell(ev.Exited(replica, -9))
    assert play.schedule.replicas[replica].in_flight == 1
    play.tell(ev.Settled(replica, broken=True))
    assert replica not in play.schedule.replicas


def test_a_call_during_a_stop_starts_the_next_replica_at_once() -> None:
    play = Play()
    play.deployed(idle_after=1)
    old = play.awake()
    play.later(1)
    assert play.state(old) == "stopping"
    [new] = starts(play.want("a"))
    assert grants(play.tell(ev.Ready(new))) == ["a"]
    assert starts(play.tell(ev.Exited(old, 0))) == []


def test_an_unfinished_background_task_keeps_its_replica_awake() -> None:
    play = Play()
    play.deployed(idle_after=1)
    replica = play.awake()
    play.tell(ev.Busy(replica, 1))
    assert stops(play.later(100)) == []
    play.tell(ev.Busy(replica, 0))
    assert stops(play.later(1)) == [replica]


def test_a_trial_becomes_the_live_replica() -> None:
    play = Play()
    [replica] = starts(play.tell(ev.Tried("e", 1, Settings())))
    assert refusals(play.want("early")) == {"early": "endpoint_not_found"}
    assert verdicts(play.tell(ev.Ready(replica))) == ["Proved"]
    play.deployed()
    assert grants(play.want("a")) == ["a"]


def test_a_trial_that_fails_leaves_nothing() -> None:
    play = Play()
    [replica] = starts(play.tell(ev.Tried("e", 1, Settings())))
    effects = play.tell(ev.Failed(replica, "no"))
    assert (verdicts(effects), stops(effects)) == (["Disproved"], [replica])
    assert verdicts(play.tell(ev.Exited(replica, 1))) == []
    assert (play.schedule.lines, play.schedule.replicas) == ({}, {})


def test_a_failed_trial_of_the_next_revision_leaves_the_live_one_untouched() -> None:
    play = Play()
    play.deployed()
    old = play.awake()
    [trial] = starts(play.tell(ev.Tried("e", 2, Settings())))
    assert verdicts(play.tell(ev.Exited(trial, 1))) == ["Disproved"]
    assert grants(play.want("a")) == ["a"]
    assert play.state(old) == "ready"


def test_two_deploys_of_one_endpoint_at_once_are_refused() -> None:
    play = Play()
    play.tell(ev.Tried("e", 1, Settings()))
    with pytest.raises(Conflict):
        play.tell(ev.Tried("e", 2, Settings()))


def test_a_new_revision_takes_over_while_the_old_one_drains() -> None:
    play = Play()
    play.deployed()
    old = play.awake()
    play.want("running")
    [trial] = starts(play.tell(ev.Tried("e", 2, Settings())))
    play.tell(ev.Ready(trial))
    assert stops(play.tell(ev.Deployed("e", 2, Settings()))) == []
    assert play.state(old) == "draining"
    grants(play.want("next"))
    assert play.schedule.replicas[trial].in_flight == 1
    assert stops(play.tell(ev.Settled(old))) == [old]


def test_calls_parked_for_the_old_revision_are_served_by_the_new_one() -> None:
    play = Play()
    play.deployed()
    [old] = starts(play.want("a"))
    [trial] = starts(play.tell(ev.Tried("e", 2, Settings())))
    play.tell(ev.Ready(trial))
    effects = play.tell(ev.Deployed("e", 2, Settings()))
    assert (grants(effects), stops(effects)) == (["a"], [old])
    assert refusals(play.tell(ev.Exited(old, -15))) == {}


def test_an_abandoned_trial_is_stopped() -> None:
    play = Play()
    [trial] = starts(play.tell(ev.Tried("e", 1, Settings())))
    assert stops(play.tell(ev.Abandoned("e"))) == [trial]
    play.tell(ev.Exited(trial, -15))
    assert play.schedule.lines == {}


def test_removal_refuses_the_queue_and_drains_what_runs() -> None:
    play = Play()
    play.deployed(concurrency=1)
    replica = play.awake()
    play.want("running")
    play.want("waiting")
    assert refusals(play.tell(ev.Removed("e"))) == {"waiting": "endpoint_not_found"}
    assert refusals(play.want("late")) == {"late": "endpoint_not_found"}
    assert stops(play.tell(ev.Settled(replica))) == [replica]
    assert only(Asleep, play.tell(ev.Exited(replica, 0))) == [Asleep("e")]
    assert play.schedule.lines == {}
    with pytest.raises(EndpointNotFound):
        play.tell(ev.Removed("e"))


def test_an_endpoint_deployed_again_while_its_removed_replica_still_drains_starts_afresh() -> None:
    play = Play()
    play.deployed()
    old = play.awake()
    play.want("running")
    play.tell(ev.Removed("e"))
    play.deployed()
    [new] = starts(play.want("a"))
    assert grants(play.tell(ev.Ready(new))) == ["a"]
    assert stops(play.tell(ev.Settled(old))) == [old]


def test_a_forced_sleep_is_over_when_what_ran_has_ended_though_calls_go_on_coming() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    play.want("a")
    play.tell(ev.Slept("e", force=True))
    assert play.state(replica) == "draining"
    [other] = starts(play.want("b"))
    assert grants(play.tell(ev.Ready(other))) == ["b"]
    assert stops(play.tell(ev.Settled(replica))) == [replica]
    assert only(Asleep, play.tell(ev.Exited(replica, 0))) == [Asleep("e")]
    assert play.state(other) == "ready"


def test_more_replicas_start_only_for_calls_that_those_starting_cannot_take() -> None:
    play = Play()
    play.deployed(concurrency=2, max_replicas=3)
    effects = [effect for i in range(5) for effect in play.want(f"c{i}")]
    assert len(starts(effects)) == 3
    first, second, third = starts(effects)
    assert grants(play.tell(ev.Ready(first))) == ["c0", "c1"]
    assert grants(play.tell(ev.Ready(second))) == ["c2", "c3"]
    assert grants(play.tell(ev.Ready(third))) == ["c4"]


def test_the_least_loaded_replica_is_chosen() -> None:
    play = Play()
    play.deployed(concurrency=2, max_replicas=2)
    effects = [effect for i in range(3) for effect in play.want(f"c{i}")]
    first, second = starts(effects)
    play.tell(ev.Ready(first))
    play.tell(ev.Ready(second))
    play.want("next")
    assert play.schedule.replicas[second].in_flight == 2


def test_a_services_own_limit_holds_where_no_concurrency_is_set() -> None:
    play = Play()
    play.deployed()
    play.awake(limit=1)
    assert grants(play.want("a")) == ["a"]
    assert grants(play.want("b")) == []
