"""Graphics cards: who has which, who waits for one, and when one is free again."""

from __future__ import annotations

from typing import Any

import pytest

from router.core import events as ev
from router.core.cards import CLEAR_WITHIN, SLACK
from router.core.effects import Disproved, Note, Proved, Refuse, Start
from router.core.events import Held
from router.core.settings import Settings
from tests.core.play import Play, grants, only, pauses, refusals, resumes, starts, stops, verdicts
from torpor.errors import NoRoom

MB = 1 << 20
GB = 1 << 30
IDLE = Held(300 * MB, 24 * GB)  # what the driver has of an idle card
FULL = Held(9 * GB, 24 * GB, {7: 8 * GB})  # a replica works on it
LEFT = Held(9 * GB, 24 * GB)  # and has died, and the driver has not taken its memory back


def machine(*cards: str, memory: int | None = None) -> Play:
    return Play(memory, dict.fromkeys(cards, IDLE))


def deployed(play: Play, name: str, gpu: int = 1, **settings: Any) -> None:
    play.deployed(name, gpu=gpu, launcher="container", **settings)


def awake(play: Play, name: str) -> tuple[str, tuple[str, ...]]:
    """A replica that has answered once, and its cards."""
    [start] = only(Start, play.want("waker", name))
    play.tell(ev.Ready(start.replica))
    play.tell(ev.Settled(start.replica))
    return start.replica, start.cards


def measure(play: Play, **cards: Held) -> list[Any]:
    return play.tell(ev.Measured({}, 0, cards))


def test_each_replica_has_whole_cards_of_its_own() -> None:
    play = machine("a", "b", "c")
    deployed(play, "one")
    deployed(play, "two", gpu=2)
    assert awake(play, "one")[1] == ("a",)
    assert awake(play, "two")[1] == ("b", "c")


def test_an_endpoint_that_wants_none_gets_none() -> None:
    play = machine("a")
    play.deployed("e")
    assert only(Start, play.want("call"))[0].cards == ()


def test_a_card_is_handed_on_when_its_memory_is_measured_to_be_free_and_not_before() -> None:
    play = machine("a")
    deployed(play, "one", idle_after=1)
    deployed(play, "two")
    replica, _ = awake(play, "one")
    measure(play, a=FULL)
    assert stops(play.later(1)) == [replica]
    assert starts(play.want("call", "two")) == []
    assert starts(play.tell(ev.Exited(replica, 0))) == []
    assert starts(measure(play, a=LEFT)) == []
    [start] = only(Start, measure(play, a=Held(IDLE.used + SLACK, 24 * GB)))
    assert (start.endpoint, start.cards) == ("two", ("a",))


def test_a_process_of_the_replica_that_outlives_it_keeps_its_card_from_others() -> None:
    play = machine("a")
    deployed(play, "one")
    deployed(play, "two")
    replica, _ = awake(play, "one")
    measure(play, a=FULL)
    play.tell(ev.Exited(replica, -9))
    play.want("call", "two")
    assert starts(measure(play, a=FULL)) == []
    assert len(starts(measure(play, a=IDLE))) == 1


def test_a_look_that_began_before_the_replicas_end_frees_no_card() -> None:
    """Its process was never seen on the card before."""
    play = machine("a")
    deployed(play, "one")
    deployed(play, "two")
    replica, _ = awake(play, "one")
    play.tell(ev.Exited(replica, -9))
    play.want("call", "two")
    assert starts(measure(play, a=FULL)) == []
    assert starts(measure(play, a=LEFT)) == []
    assert len(starts(measure(play, a=IDLE))) == 1


def test_processes_that_were_there_before_or_came_after_the_replica_do_not_keep_its_card() -> None:
    play = machine("a")
    deployed(play, "one")
    deployed(play, "two")
    measure(play, a=Held(IDLE.used + GB, 24 * GB, {1: GB}))
    replica, _ = awake(play, "one")
    measure(play, a=Held(FULL.used + GB, 24 * GB, {1: GB, 7: 8 * GB}))
    play.tell(ev.Exited(replica, 0))
    play.want("call", "two")
    assert starts(measure(play, a=Held(LEFT.used + GB, 24 * GB, {1: GB}))) == []
    assert len(starts(measure(play, a=Held(IDLE.used + 5 * GB, 24 * GB, {1: 2 * GB, 99: 3 * GB})))) == 1


def test_a_card_that_nobody_gives_back_is_handed_on_after_a_while_with_a_note() -> None:
    play = machine("a")
    deployed(play, "one")
    deployed(play, "two")
    replica, _ = awake(play, "one")
    play.tell(ev.Exited(replica, -9))
    play.want("call", "two")
    measure(play, a=LEFT)
    assert starts(play.later(CLEAR_WITHIN - 1)) == []
    effects = play.later(1)
    [note] = [each for each in only(Note, effects) if each.kind == "unfreed"]
    assert (note.endpoint, note.replica) == ("one", replica)
    assert "GPU a has 8916 MiB more than before" in note.text
    assert only(Start, effects)[0].cards == ("a",)


def test_a_card_that_was_freed_in_time_is_not_spoken_of() -> None:
    play = machine("a")
    deployed(play, "one")
    replica, _ = awake(play, "one")
    play.tell(ev.Exited(replica, 0))
    measure(play, a=IDLE)
    assert [each.kind for each in only(Note, play.later(CLEAR_WITHIN)) if each.kind == "unfreed"] == []


def test_a_start_that_lacks_a_card_sends_the_idle_replica_that_has_one_to_sleep_and_no_other() -> None:
    play = machine("a")
    play.deployed("cpu")
    deployed(play, "one")
    deployed(play, "two")
    idle, (holder, _) = play.awake("cpu"), awake(play, "one")
    play.now += 10
    effects = play.want("call", "two")
    assert (starts(effects), stops(effects)) == ([], [holder])
    assert play.state(idle) == "ready"
    play.tell(ev.Exited(holder, 0))
    [replica] = starts(measure(play, a=IDLE))
    assert grants(play.tell(ev.Ready(replica))) == ["call"]


def test_a_busy_replica_gives_its_card_up_after_its_turn_and_ends_its_calls_first() -> None:
    play = machine("a")
    deployed(play, "one")
    deployed(play, "two")
    replica, _ = awake(play, "one")
    play.want("long", "one")
    assert stops(play.want("call", "two")) == []
    play.later(1)
    assert play.state(replica) == "draining"
    assert stops(play.later(300)) == []
    assert stops(play.tell(ev.Settled(replica))) == [replica]


def test_a_frozen_replica_keeps_its_card_until_another_endpoint_wants_it() -> None:
    play = machine("a")
    deployed(play, "one", sleep="pause", idle_after=1)
    deployed(play, "two")
    replica, _ = awake(play, "one")
    assert pauses(play.later(1)) == [replica]
    assert resumes(play.want("again", "one")) == [replica]
    play.tell(ev.Ready(replica))
    play.tell(ev.Settled(replica))
    assert pauses(play.later(1)) == [replica]
    assert stops(play.want("call", "two")) == [replica]
    play.tell(ev.Exited(replica, 0))
    assert only(Start, measure(play, a=IDLE))[0].cards == ("a",)


def test_more_replicas_than_cards_wait() -> None:
    play = machine("a")
    deployed(play, "one", max_replicas=3, concurrency=1)
    [first] = only(Start, play.want("1", "one"))
    assert starts(play.want("2", "one")) == []
    assert only(Refuse, play.later(60)) == []
    assert grants(play.tell(ev.Ready(first.replica, 1))) == ["1"]
    assert grants(play.tell(ev.Settled(first.replica))) == ["2"]


def test_a_start_that_waits_for_a_card_lets_those_pass_that_want_none() -> None:
    play = machine("a", memory=250 * MB)
    deployed(play, "one", memory=100 * MB)
    deployed(play, "two", memory=100 * MB)
    play.deployed("cpu", memory=100 * MB)
    awake(play, "one")
    play.want("long", "one")
    assert starts(play.want("waits", "two")) == []
    assert len(starts(play.want("call", "cpu"))) == 1


def test_starts_that_wait_for_cards_are_served_in_their_order() -> None:
    play = machine("a", "b")
    deployed(play, "one")
    deployed(play, "pair", gpu=2)
    deployed(play, "last")
    replica, _ = awake(play, "one")
    play.want("long", "one")
    assert starts(play.want("first", "pair")) == []
    assert starts(play.want("second", "last")) == []  # the card that is free is the pair's
    play.tell(ev.Settled(replica))
    play.later(1)
    play.tell(ev.Exited(replica, 0))
    [start] = only(Start, measure(play, a=IDLE, b=IDLE))
    assert (start.endpoint, set(start.cards)) == ("pair", {"a", "b"})


def test_a_start_that_lacks_memory_and_a_card_gets_both() -> None:
    play = machine("a", memory=150 * MB)
    deployed(play, "one", memory=100 * MB)
    deployed(play, "two", memory=100 * MB)
    holder, _ = awake(play, "one")
    play.now += 10
    assert stops(play.want("call", "two")) == [holder]
    assert starts(play.tell(ev.Exited(holder, 0))) == []
    assert len(starts(measure(play, a=IDLE))) == 1


def test_an_endpoint_that_wants_more_cards_than_there_are_is_refused_at_once() -> None:
    play = machine("a")
    deployed(play, "two", gpu=2)
    [refusal] = only(Refuse, play.want("call", "two"))
    assert refusal.error.code == "no_room"
    assert refusal.error.message.startswith("a replica of 'two' wants 2 GPUs, and this machine has 1")
    with pytest.raises(NoRoom, match="wants 2 GPUs"):
        play.tell(ev.Tried("other", 1, Settings(gpu=2, launcher="container")))


def test_a_caller_who_waits_for_a_card_in_vain_is_told_so() -> None:
    play = machine("a")
    deployed(play, "one")
    deployed(play, "two", queue_within=3)
    awake(play, "one")
    play.want("long", "one")
    play.want("call", "two")
    [refusal] = only(Refuse, play.later(3))
    assert "waited 3.0 s for memory or a GPU" in refusal.error.message


def test_a_card_that_does_not_answer_is_not_handed_out_until_it_does() -> None:
    play = machine("a", "b")
    deployed(play, "one")
    measure(play, b=IDLE)
    assert only(Start, play.want("call", "one"))[0].cards == ("b",)
    deployed(play, "two")
    assert starts(play.want("more", "two")) == []
    assert only(Start, measure(play, a=IDLE, b=FULL))[0].cards == ("a",)


def test_what_a_card_held_before_it_fell_silent_does_not_make_it_free() -> None:
    play = machine("a", "b")
    deployed(play, "one")
    replica, cards = awake(play, "one")
    assert cards == ("a",)
    play.tell(ev.Exited(replica, -9))
    measure(play, b=IDLE)
    deployed(play, "pair", gpu=2)
    assert starts(play.want("call", "pair")) == []
    assert starts(measure(play, a=LEFT, b=IDLE)) == []
    assert len(starts(measure(play, a=IDLE, b=IDLE))) == 1


def test_a_card_without_as_much_free_memory_as_was_measured_is_not_handed_out() -> None:
    play = machine("a", "b")
    deployed(play, "one", idle_after=1)
    replica, _ = awake(play, "one")
    measure(play, a=FULL, b=IDLE)
    play.later(1)
    play.tell(ev.Exited(replica, 0))
    measure(play, a=IDLE, b=IDLE)
    crowded = Held(20 * GB, 24 * GB, {99: 20 * GB})
    measure(play, a=crowded, b=IDLE)
    assert only(Start, play.want("call", "one"))[0].cards == ("b",)


def test_what_a_replica_has_on_its_cards_is_what_is_more_than_before() -> None:
    play = machine("a", "b")
    deployed(play, "pair", gpu=2)
    replica, _ = awake(play, "pair")
    measure(play, a=FULL, b=Held(IDLE.used + GB, 24 * GB, {8: GB}))
    assert play.schedule.replicas[replica].gpu_memory == FULL.used - IDLE.used + GB
    assert play.schedule.lines["pair"].gpu_memory == FULL.used - IDLE.used


def test_a_start_that_fails_gives_its_card_back() -> None:
    play = machine("a")
    deployed(play, "one")
    [start] = only(Start, play.want("call", "one"))
    play.tell(ev.Failed(start.replica, "no image"))
    play.tell(ev.Exited(start.replica, 1))
    measure(play, a=IDLE)
    deployed(play, "two")
    assert only(Start, play.want("other", "two"))[0].cards == ("a",)


# Trials


def tried(play: Play, name: str, revision: int = 2, **settings: Any) -> list[Any]:
    return play.tell(ev.Tried(name, revision, Settings(gpu=1, launcher="container", **settings)))


def test_on_a_machine_with_one_card_a_trial_takes_it_from_the_live_revision_whose_callers_wait() -> None:
    play = machine("a")
    deployed(play, "one")
    live, _ = awake(play, "one")
    play.now += 10
    effects = tried(play, "one")
    assert (starts(effects), stops(effects)) == ([], [live])
    play.want("call", "one")
    play.tell(ev.Exited(live, 0))
    [trial] = only(Start, measure(play, a=IDLE))
    assert trial.revision == 2
    assert verdicts(play.tell(ev.Ready(trial.replica))) == ["Proved"]
    assert grants(play.tell(ev.Deployed("one", 2, Settings(gpu=1, launcher="container")))) == ["call"]


def test_of_a_trial_that_fails_the_live_revision_has_its_card_again() -> None:
    play = machine("a")
    deployed(play, "one")
    live, _ = awake(play, "one")
    play.now += 10
    tried(play, "one")
    play.want("call", "one")
    play.tell(ev.Exited(live, 0))
    [trial] = starts(measure(play, a=IDLE))
    play.tell(ev.Failed(trial, "no such class"))
    play.tell(ev.Exited(trial, 1))
    [start] = only(Start, measure(play, a=IDLE))
    assert start.revision == 1
    assert grants(play.tell(ev.Ready(start.replica))) == ["call"]


def test_a_trial_that_waits_too_long_is_disproved_and_leaves_nothing() -> None:
    play = machine("a")
    deployed(play, "one")
    awake(play, "one")
    play.want("long", "one")
    play.want("longer", "one")
    assert only(Proved, tried(play, "new", 1, queue_within=0.1)) == []
    [disproved] = only(Disproved, play.later(0.1))
    assert disproved.error.message.startswith("the trial of 'new' waited 0.1 s for 1 GPU:")
    assert "new" not in play.schedule.lines
    play.later(1)
    assert play.schedule.room.hungry == {}


def test_a_trial_that_waits_can_be_abandoned_and_is_not_stopped_since_nothing_runs() -> None:
    play = machine("a")
    deployed(play, "one")
    awake(play, "one")
    play.want("long", "one")
    assert starts(tried(play, "new", 1)) == []
    effects = play.tell(ev.Abandoned("new"))
    assert stops(effects) == []
    assert "new" not in play.schedule.lines
    assert starts(tried(play, "new", 2)) == []
    assert refusals(play.tell(ev.ShutDown())) == {}
    assert set(play.schedule.lines) == {"one"}
