"""The rung `pause`: who is frozen, what wakes it, what ends it, and what becomes of a pause that fails."""

from __future__ import annotations

from typing import Any

import pytest

from router.core import events as ev
from router.core.effects import Asleep, Note, Pause, Refuse, Resume, Start
from router.core.settings import Settings
from tests.core.play import Play, grants, only, pauses, refusals, resumes, starts, stops, verdicts
from tests.core.simulate import Load, Simulation
from torpor.errors import Conflict

MB = 1 << 20


def frozen(play: Play, name: str = "e", size: int = 0, **settings: Any) -> str:
    """An endpoint that sleeps with its replica frozen; the replica's id."""
    play.deployed(name, **{"sleep": "pause", "idle_after": 1, **settings})
    replica = play.awake(name, limit=2)
    if size:
        play.tell(ev.Measured({replica: size}))
    assert pauses(play.later(1)) == [replica]
    return replica


def notes(play: Play, kind: str) -> list[str]:
    return [note.text for note in only(Note, play.effects) if note.kind == kind]


# Falling asleep and waking


def test_an_idle_replica_is_frozen_instead_of_stopped_and_its_endpoint_is_asleep() -> None:
    play = Play()
    replica = frozen(play)
    assert (play.state(replica), stops(play.effects)) == ("paused", [])
    assert only(Asleep, play.effects) == [Asleep("e")]
    assert play.schedule.lines["e"].asleep()
    assert notes(play, "paused") == [f"replica {replica} is paused: it was idle for 1 s"]


def test_a_call_resumes_the_frozen_replica_and_starts_none() -> None:
    play = Play()
    replica = frozen(play)
    effects = play.want("a")
    assert (resumes(effects), starts(effects), play.state(replica)) == ([replica], [], "starting")
    play.now += 0.02
    effects = play.tell(ev.Ready(replica, None, {"resume": 0.02}))
    assert grants(effects) == ["a"]
    assert [note.phases for note in only(Note, effects) if note.kind == "woke"] == [{"resume": 0.02}]
    assert grants(play.want("b")) == ["b"]
    assert grants(play.want("c")) == [], "its limit is what its service said at its start"
    assert play.schedule.lines["e"].cold_starts == 2
    assert list(play.schedule.lines["e"].starts)[-1] == pytest.approx(0.02)


def test_it_sleeps_and_wakes_again_and_again_as_one_replica() -> None:
    play = Play()
    replica = frozen(play)
    for number in range(5):
        assert resumes(play.want(f"c{number}")) == [replica]
        assert grants(play.tell(ev.Ready(replica))) == [f"c{number}"]
        play.tell(ev.Settled(replica))
        assert pauses(play.later(1)) == [replica]
    assert starts(play.effects) == [replica]


def test_a_replica_that_runs_a_call_or_a_task_is_not_frozen() -> None:
    play = Play()
    play.deployed(sleep="pause", idle_after=1)
    replica = play.awake()
    play.want("long")
    assert pauses(play.later(60)) == []
    play.tell(ev.Busy(replica, 1))
    play.tell(ev.Settled(replica))
    assert pauses(play.later(60)) == []
    play.tell(ev.Busy(replica, 0))
    assert pauses(play.later(1)) == [replica]


def test_a_task_that_was_told_while_its_replica_was_being_frozen_wakes_it() -> None:
    play = Play()
    replica = frozen(play)
    assert resumes(play.tell(ev.Busy(replica, 1))) == [replica]
    play.tell(ev.Ready(replica))
    assert pauses(play.later(60)) == []


def test_replicas_that_are_kept_awake_are_not_frozen() -> None:
    play = Play()
    play.deployed(sleep="pause", idle_after=1, min_replicas=1)
    [replica] = starts(play.effects)
    play.tell(ev.Ready(replica))
    assert pauses(play.later(60)) == []


def test_of_several_replicas_the_last_one_is_frozen_and_the_others_stop() -> None:
    play = Play()
    play.deployed(sleep="pause", idle_after=1, max_replicas=2, concurrency=1, scale_window=10)
    both = starts(play.want("a") + play.want("b"))
    for replica in both:
        play.tell(ev.Ready(replica))
    for replica in both:
        play.tell(ev.Settled(replica))
    effects = play.later(60)
    assert sorted(stops(effects) + pauses(effects)) == both
    assert len(pauses(effects)) == 1
    [start] = starts(play.want("c") + play.want("d"))  # one of the two is there already
    assert start not in both
    assert resumes(play.effects) == pauses(effects)


# The laws, for a start that is a resume


def test_law_4_many_callers_share_one_resume_and_one_who_leaves_does_not_cancel_it() -> None:
    play = Play()
    replica = frozen(play)
    effects = [effect for i in range(20) for effect in play.want(f"c{i}")]
    assert (resumes(effects), starts(effects)) == ([replica], [])
    for i in range(20):
        assert play.tell(ev.CallerLeft("e", f"c{i}")) == []
    play.tell(ev.Ready(replica))
    assert play.state(replica) == "ready"


def test_law_6_a_resume_that_loses_to_a_stop_is_still_reaped() -> None:
    play = Play()
    replica = frozen(play)
    play.want("a")
    assert stops(play.tell(ev.Slept("e", force=True))) == [replica]
    assert play.tell(ev.Ready(replica)) == []
    assert play.state(replica) == "stopping"
    play.tell(ev.Exited(replica, -9))
    assert replica not in play.schedule.replicas


def test_law_9_what_is_frozen_is_stopped_at_shutdown() -> None:
    play = Play()
    replica = frozen(play)
    assert stops(play.tell(ev.ShutDown())) == [replica]
    assert not play.schedule.lines["e"].asleep(), "it is waited for"
    assert only(Asleep, play.tell(ev.Exited(replica, -9))) == [Asleep("e")]


@pytest.mark.parametrize("fault", ["failed", "exited", "late"])
def test_a_resume_that_fails_is_no_fault_of_the_revision_and_its_callers_have_a_start_anew(fault: str) -> None:
    play = Play()
    replica = frozen(play, start_within=10)
    play.want("a")
    effects = {
        "failed": lambda: play.tell(ev.Failed(replica, "no such container")),
        "exited": lambda: play.tell(ev.Exited(replica, -9)),
        "late": lambda: play.later(10),
    }[fault]()
    [fresh] = starts(effects)
    assert refusals(effects) == {}
    assert stops(effects) == ([] if fault == "exited" else [replica])
    if fault != "exited":
        assert starts(play.tell(ev.Exited(replica, -9))) == []
    assert grants(play.tell(ev.Ready(fresh))) == ["a"]
    assert len(notes(play, "start_failed")) == 1


def test_where_the_start_anew_fails_too_the_callers_are_refused_once() -> None:
    play = Play()
    replica = frozen(play)
    play.want("a")
    [fresh] = starts(play.tell(ev.Failed(replica, "no such container")))
    play.tell(ev.Exited(replica, -9))
    [refusal] = only(Refuse, play.tell(ev.Failed(fresh, "no weights")))
    assert (refusal.call, "no weights" in refusal.error.message) == ("a", True)


def test_what_is_frozen_is_resumed_also_while_starts_are_put_off() -> None:
    play = Play()
    play.deployed(sleep="pause", idle_after=1, max_replicas=2, concurrency=1, scale_window=1)
    [first] = starts(play.want("a"))
    play.tell(ev.Ready(first))
    [second] = starts(play.want("b"))
    play.tell(ev.CallerLeft("e", "b"))
    play.tell(ev.Failed(second, "no weights"))
    play.tell(ev.Exited(second, 1))
    play.tell(ev.Settled(first))
    play.schedule.lines["e"].retry_at = play.now + 60
    assert pauses(play.later(2)) == [first]
    effects = play.want("c")
    assert (resumes(effects), refusals(effects)) == ([first], {})


# Ends


def test_one_that_is_killed_while_it_is_frozen_is_noted_and_its_endpoint_only_sleeps_without_it() -> None:
    play = Play()
    replica = frozen(play)
    effects = play.tell(ev.Exited(replica, -9))
    assert (starts(effects), refusals(effects)) == ([], {})
    assert "was killed by SIGKILL" in notes(play, "died")[0]
    line = play.schedule.lines["e"]
    assert (line.asleep(), line.error, line.bare) == (True, None, "its frozen replica died: it was killed by SIGKILL")
    assert len(starts(play.want("a"))) == 1


def test_a_pause_that_fails_stops_the_replica_and_says_why() -> None:
    play = Play()
    replica = frozen(play)
    effects = play.tell(ev.Failed(replica, "the engine has no freezer"))
    assert stops(effects) == [replica]
    assert notes(play, "lost") == [f"replica {replica} goes: it could not be paused: the engine has no freezer"]
    assert play.schedule.lines["e"].bare == "it could not be paused: the engine has no freezer"
    play.tell(ev.Exited(replica, 0))
    assert (notes(play, "died"), play.schedule.lines["e"].error) == ([], None)
    assert play.schedule.lines["e"].bare == "it could not be paused: the engine has no freezer"


def test_a_pause_that_fails_when_a_call_waits_already_costs_it_a_start_and_no_more() -> None:
    play = Play()
    replica = frozen(play)
    play.want("a")
    effects = play.tell(ev.Failed(replica, "the engine has no freezer"))
    assert (stops(effects), refusals(effects)) == ([replica], {})
    [fresh] = starts(effects)
    assert grants(play.tell(ev.Ready(fresh))) == ["a"]


def test_keep_for_ends_what_was_frozen_that_long() -> None:
    play = Play()
    replica = frozen(play, keep_for=60)
    assert stops(play.later(59)) == []
    assert stops(play.later(1)) == [replica]
    assert notes(play, "dropped") == [f"replica {replica} goes: it was paused, and not needed for 60 s (keep_for)"]
    play.tell(ev.Exited(replica, -9))
    assert "(it was not needed for keep_for)" in notes(play, "ended")[0]
    assert play.schedule.lines["e"].bare == "its frozen replica went: it was not needed for keep_for"
    assert play.schedule.next_deadline() is None


def test_keep_for_begins_anew_with_each_pause_and_0_is_for_ever() -> None:
    play = Play()
    replica = frozen(play, keep_for=60)
    play.later(50)
    play.want("a")
    play.tell(ev.Ready(replica))
    play.later(60)
    play.tell(ev.Settled(replica))
    assert stops(play.later(1 + 59)) == []
    assert stops(play.later(1)) == [replica]
    other = frozen(play, "other", keep_for=0)
    assert stops(play.later(1e9)) == []
    assert play.state(other) == "paused"


# Memory


def test_what_is_frozen_holds_its_memory_and_goes_before_an_idle_replica() -> None:
    play = Play(memory=250 * MB)
    asleep = frozen(play, "asleep", size=100 * MB, memory=100 * MB)
    play.deployed("idle", memory=100 * MB, sleep="deep", idle_after=1000)
    awake = play.awake("idle")
    play.tell(ev.Measured({asleep: 100 * MB, awake: 100 * MB}))
    assert play.schedule.room.used() == 200 * MB
    play.deployed("new", memory=100 * MB)
    effects = play.want("call", "new")
    assert (stops(effects), starts(effects)) == ([asleep], [])
    assert "it was paused" in notes(play, "evicted")[0]
    assert len(starts(play.tell(ev.Exited(asleep, -9)))) == 1
    assert play.state(awake) == "ready"
    assert play.schedule.room.evictions == 1


def test_of_what_is_kept_the_one_used_longest_ago_goes_first_whatever_it_is() -> None:
    play = Play(memory=250 * MB)
    first = frozen(play, "first", size=60 * MB)
    play.deployed("second", idle_after=1)
    replica = play.awake("second")
    play.later(1)
    [template] = play.schedule.shelf.templates
    play.tell(ev.Kept(template, 60 * MB))
    play.tell(ev.Exited(replica, 0))
    third = frozen(play, "third", size=60 * MB)
    sizes = {first: 60 * MB, template: 60 * MB, third: 60 * MB}
    assert stops(play.tell(ev.Measured(sizes, 80 * MB))) == [first]  # 10 MB too many
    play.tell(ev.Exited(first, -9))
    assert [note.replica for note in only(Note, play.tell(ev.Measured(sizes, 150 * MB)))] == [template]
    play.tell(ev.Unkept(template))
    assert stops(play.tell(ev.Measured(sizes, 200 * MB))) == [third]


def test_a_resume_needs_no_memory_of_its_own_and_does_not_wait_behind_others() -> None:
    play = Play(memory=250 * MB)
    asleep = frozen(play, "asleep", size=100 * MB, memory=100 * MB)
    play.deployed("busy", memory=100 * MB, sleep="deep")
    busy = play.awake("busy")
    play.tell(ev.Measured({asleep: 100 * MB, busy: 100 * MB}))
    assert resumes(play.want("call", "asleep")) == [asleep]
    assert play.schedule.room.hungry == {}


def test_nothing_is_frozen_where_memory_is_short() -> None:
    play = Play(memory=150 * MB)
    play.deployed("a", memory=100 * MB, sleep="pause", idle_after=1)
    replica = play.awake("a")
    play.want("long", "a")
    play.deployed("b", memory=100 * MB)
    play.want("call", "b")
    effects = play.later(0.5) + play.tell(ev.Settled(replica)) + play.later(2)
    assert (pauses(effects), stops(effects)) == ([], [replica])


# The owner


def test_the_owner_freezes_it_as_idleness_would() -> None:
    play = Play()
    play.deployed(sleep="pause")
    replica = play.awake()
    effects = play.tell(ev.Slept("e"))
    assert (pauses(effects), stops(effects)) == ([replica], [])
    assert Asleep("e") in effects
    assert Asleep("e") in play.tell(ev.Slept("e")), "also when it sleeps already"
    assert resumes(play.want("a")) == [replica]


def test_what_the_owner_cuts_off_is_stopped_and_not_kept() -> None:
    play = Play()
    play.deployed(sleep="pause", drain_within=5)
    replica = play.awake()
    play.want("long")
    with pytest.raises(Conflict):
        play.tell(ev.Slept("e"))
    play.tell(ev.Slept("e", force=True))
    assert (pauses(play.effects), stops(play.later(5))) == ([], [replica])


def test_a_newer_revision_ends_what_is_frozen_of_the_old_one() -> None:
    play = Play()
    old = frozen(play)
    [trial] = starts(play.tell(ev.Tried("e", 2, Settings(sleep="pause"))))
    assert play.state(old) == "paused", "until the new one has proved itself, calls are the old one's"
    assert verdicts(play.tell(ev.Ready(trial))) == ["Proved"]
    assert stops(play.deployed(revision=2, sleep="pause")) == [old]
    assert grants(play.want("a")) == ["a"]


def test_a_frozen_replica_of_the_same_revision_stays_when_another_one_of_it_is_proved() -> None:
    play = Play()
    first = frozen(play)
    [trial] = starts(play.tell(ev.Tried("e", 1, Settings(sleep="pause", idle_after=1))))
    play.tell(ev.Ready(trial))
    play.deployed(sleep="pause", idle_after=1)
    assert (pauses(play.later(1)), stops(play.effects)) == ([], [trial]), "one is kept, and no more"
    assert resumes(play.want("a")) == [first]


def test_a_removed_endpoint_keeps_nothing_frozen() -> None:
    play = Play()
    replica = frozen(play)
    assert stops(play.tell(ev.Removed("e"))) == [replica]
    assert only(Asleep, play.tell(ev.Exited(replica, -9))) == [Asleep("e")]
    assert play.schedule.lines == {}


def test_a_removed_endpoint_is_not_started_again_for_those_that_were_kept_awake() -> None:
    play = Play()
    play.deployed(min_replicas=2, max_replicas=2)
    both = starts(play.effects)
    for replica in both:
        play.tell(ev.Ready(replica))
    play.tell(ev.Removed("e"))
    assert starts(play.tell(ev.Exited(both[0], 0)) + play.tell(ev.Exited(both[1], 0))) == []
    assert play.schedule.lines == {}


def test_an_endpoint_under_traffic_with_pauses_is_frozen_and_resumed_and_started_once() -> None:
    play = Play()
    play.deployed(sleep="pause", idle_after=5)
    loads = [Load(at, 0.1) for at in range(0, 1000, 20)]
    seen = Simulation(play, start_takes=2.0).run(loads, 2000)
    assert (len(seen.starts), len(seen.pauses), len(seen.resumes), seen.stops) == (1, 50, 49, [])
    assert max(seen.waits["e"][1:]) == pytest.approx(0.02)


def test_effects_name_the_replica_and_nothing_else() -> None:
    play = Play()
    replica = frozen(play)
    assert only(Pause, play.effects) == [Pause(replica)]
    play.want("a")
    assert (only(Resume, play.effects), len(only(Start, play.effects))) == ([Resume(replica)], 1)
