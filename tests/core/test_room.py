"""Memory: who goes for whom, who waits, who is refused."""

from __future__ import annotations

import random
from typing import Any

from router.core import events as ev
from router.core.effects import Note, Refuse
from router.core.settings import Settings
from tests.core.play import Play, dropped, grants, kept, only, refusals, starts, stops, verdicts
from tests.core.simulate import Load, Seen, Simulation

MB = 1 << 20


def two_of(play: Play, *names: str, **settings: Any) -> dict[str, str]:
    """Endpoints of 100 MB each, awake and measured: name -> replica."""
    out: dict[str, str] = {}
    for name in names:
        play.deployed(name, memory=100 * MB, sleep="deep", **settings)
        out[name] = play.awake(name)
        play.tell(ev.Measured(dict.fromkeys(out.values(), 100 * MB)))
        play.now += 1
    return out


def test_without_a_limit_nothing_waits_for_memory() -> None:
    play = Play()
    two_of(play, "a", "b", "c")
    assert play.schedule.room.hungry == {}


def test_a_start_that_does_not_fit_sends_the_longest_idle_replica_to_sleep_and_starts_when_that_is_gone() -> None:
    play = Play(memory=250 * MB)
    awake = two_of(play, "a", "b")
    play.deployed("c", memory=100 * MB)
    effects = play.want("call", "c")
    assert (starts(effects), stops(effects)) == ([], [awake["a"]])
    [replica] = starts(play.tell(ev.Exited(awake["a"], 0)))
    assert grants(play.tell(ev.Ready(replica))) == ["call"]
    assert play.state(awake["b"]) == "ready"


def test_of_two_idle_replicas_the_one_that_wakes_more_quickly_goes() -> None:
    play = Play(memory=250 * MB)
    for name, takes in (("slow", 30.0), ("quick", 0.1)):
        play.deployed(name, memory=100 * MB, sleep="deep")
        [replica] = starts(play.want("waker", name))
        play.now += takes
        play.tell(ev.Ready(replica))
        play.tell(ev.Settled(replica))
        play.tell(ev.Measured({replica: 100 * MB}))
    play.now += 5
    play.deployed("c", memory=100 * MB)
    [gone] = stops(play.want("call", "c"))
    assert gone.startswith("quick")


def test_templates_go_before_replicas() -> None:
    play = Play(memory=250 * MB)
    play.deployed("t", memory=10 * MB, idle_after=1)
    replica = play.awake("t")
    [template] = kept(play.later(1))
    play.tell(ev.Kept(template, 60 * MB))
    play.tell(ev.Exited(replica, 0))
    awake = two_of(play, "a")
    play.deployed("c", memory=100 * MB)
    effects = play.want("call", "c")
    assert (dropped(effects), stops(effects)) == ([template], [])
    assert len(starts(play.tell(ev.Unkept(template)))) == 1
    assert play.state(awake["a"]) == "ready"


def test_a_busy_replica_ends_its_calls_after_its_turn_and_is_never_cut_off() -> None:
    play = Play(memory=150 * MB)
    awake = two_of(play, "a", drain_within=5)
    play.want("long", "a")
    play.deployed("b", memory=100 * MB)
    effects = play.want("call", "b")
    assert (starts(effects), stops(effects), refusals(effects)) == ([], [], {})
    assert grants(play.want("still", "a")) == ["still"]
    play.later(1)
    assert play.state(awake["a"]) == "draining"
    assert grants(play.want("late", "a")) == []  # it waits for its own next turn
    assert stops(play.later(300)) == []
    play.tell(ev.Settled(awake["a"]))
    assert stops(play.tell(ev.Settled(awake["a"]))) == [awake["a"]]
    [replica] = starts(play.tell(ev.Exited(awake["a"], 0)))
    assert replica.startswith("b")


def test_a_caller_who_waits_for_memory_in_vain_is_told_so() -> None:
    play = Play(memory=150 * MB)
    two_of(play, "a")
    play.want("long", "a")
    play.deployed("b", memory=100 * MB, queue_within=3)
    play.want("call", "b")
    [refusal] = only(Refuse, play.later(3))
    assert refusal.error.code == "no_room"
    assert refusal.error.retry_after is not None


def test_an_endpoint_that_can_never_fit_is_refused_at_once() -> None:
    play = Play(memory=150 * MB)
    two_of(play, "a")
    play.deployed("huge", memory=500 * MB)
    effects = play.want("call", "huge")
    assert (refusals(effects), stops(effects)) == ({"call": "no_room"}, [])


def test_one_whose_callers_have_left_gives_its_place_up() -> None:
    play = Play(memory=150 * MB)
    awake = two_of(play, "a")
    play.want("long", "a")
    play.deployed("b", memory=100 * MB)
    play.want("call", "b")
    play.tell(ev.CallerLeft("b", "call"))
    assert play.schedule.room.hungry == {}
    play.later(60)
    assert play.state(awake["a"]) == "ready"


def test_what_grows_beyond_the_limit_sends_the_idle_away_and_leaves_the_busy() -> None:
    play = Play(memory=250 * MB)
    awake = two_of(play, "a", "b")
    play.want("call", "b")
    effects = play.tell(ev.Measured({awake["a"]: 100 * MB, awake["b"]: 400 * MB}))
    assert stops(effects) == [awake["a"]]
    assert [note.kind for note in only(Note, effects)] == ["evicted"]


def test_a_replica_above_its_own_limit_ends_its_calls_and_the_next_call_has_another_one() -> None:
    play = Play()
    play.deployed(memory_limit=100 * MB, drain_within=5)
    leaks = play.awake()
    assert grants(play.want("running")) == ["running"]
    assert play.tell(ev.Measured({leaks: 100 * MB})) == []
    effects = play.tell(ev.Measured({leaks: 101 * MB}))
    [note] = only(Note, effects)
    assert (note.kind, stops(effects), play.state(leaks)) == ("too_large", [], "draining")
    assert "101 MiB, more than its memory_limit of 100 MiB" in note.text
    [fresh] = starts(play.want("next"))
    assert grants(play.tell(ev.Ready(fresh))) == ["next"]
    assert play.tell(ev.Measured({leaks: 200 * MB, fresh: 50 * MB})) == []
    assert stops(play.later(5)) == [leaks]  # it leaks on: drain_within bounds it
    assert play.schedule.lines["e"].memory == 100 * MB, "the next start is not taken to need what was leaked"


def test_an_idle_replica_above_its_own_limit_goes_at_once_and_one_on_its_way_to_sleep_is_not_taken_back() -> None:
    play = Play()
    play.deployed(memory_limit=100 * MB, sleep="deep")
    idle = play.awake()
    assert stops(play.tell(ev.Measured({idle: 101 * MB}))) == [idle]
    play.tell(ev.Exited(idle, 0))
    second = play.awake()
    play.want("running")
    play.tell(ev.Slept("e", force=True))
    play.tell(ev.Measured({second: 101 * MB}))
    assert len(starts(play.want("next"))) == 1


def test_one_that_is_above_its_own_limit_before_it_is_ready_could_not_start() -> None:
    play = Play()
    play.deployed(memory_limit=100 * MB)
    [starting] = starts(play.want("call"))
    effects = play.tell(ev.Measured({starting: 101 * MB}))
    assert (refusals(effects), stops(effects)) == ({"call": "start_failed"}, [starting])
    play.tell(ev.Exited(starting, -15))
    assert refusals(play.want("again")) == {"again": "start_failed"}  # put off: no loop of starts


def test_a_trial_above_its_own_limit_is_disproved_while_it_starts_and_left_to_its_deploy_once_it_is_ready() -> None:
    play = Play()
    play.tell(ev.Tried("e", 1, Settings(memory_limit=100 * MB)))
    [starting] = play.schedule.replicas
    assert verdicts(play.tell(ev.Measured({starting: 101 * MB}))) == ["Disproved"]
    play.tell(ev.Exited(starting, -15))
    play.tell(ev.Tried("e", 2, Settings(memory_limit=100 * MB)))
    [ready] = play.schedule.replicas
    assert verdicts(play.tell(ev.Ready(ready))) == ["Proved"]
    assert play.tell(ev.Measured({ready: 101 * MB})) == []


def test_what_is_on_its_way_out_is_not_sent_away_twice() -> None:
    play = Play(memory=250 * MB)
    awake = two_of(play, "a", "b")
    play.deployed("c", memory=100 * MB)
    play.deployed("d", memory=100 * MB)
    assert stops(play.want("one", "c")) == [awake["a"]]
    assert stops(play.want("two", "d")) == []  # in turn: c first
    effects = play.tell(ev.Exited(awake["a"], 0))
    assert (len(starts(effects)), stops(effects)) == (1, [awake["b"]])


def alternating(seed: int, models: int, every: float, seconds: float) -> list[Load]:
    rng, at, loads = random.Random(seed), 0.0, []
    while at < seconds:
        at += rng.expovariate(1 / every)
        loads.append(Load(at, 0.1, f"m{rng.randrange(models)}"))
    return loads


def swap(loads: list[Load], models: int, fit: int, load_takes: float) -> Seen:
    play = Play(memory=fit * 100 * MB + 50 * MB)
    for k in range(models):
        play.deployed(f"m{k}", memory=100 * MB, sleep="deep")
    return Simulation(play, load_takes, 100 * MB).run(loads, 1e9 if not loads else loads[-1].at + 3000)


def test_models_that_do_not_fit_together_are_served_in_batches_and_all_in_the_end() -> None:
    loads = alternating(7, models=2, every=0.05, seconds=300)
    seen = swap(loads, models=2, fit=1, load_takes=1.0)
    assert seen.refused == {}
    assert sum(map(len, seen.waits.values())) == len(loads)
    # One model at a time: A-B-A-B would load at nearly every call, some 6,000 times.
    assert len(seen.starts) <= 2 * 300 / 4
    for waits in seen.waits.values():
        assert max(waits) < 4 + 4 + 2 + 2  # a turn, a load, the other's last calls, and its own queue
