"""Every transition of an endpoint, its replicas and its template is noted once, with who and how long."""

from __future__ import annotations

from router.core import events as ev
from router.core.effects import Effect, Note
from router.core.settings import Settings
from tests.core.play import Play, kept, only, starts

MIB = 1 << 20


def noted(effects: list[Effect]) -> list[tuple[str, str, float | None]]:
    return [(note.kind, note.replica or "", note.seconds) for note in only(Note, effects)]


def test_a_life_is_noted_from_its_start_to_its_end() -> None:
    play = Play()
    play.deployed(idle_after=60, sleep="deep")
    [replica] = starts(play.want("a"))
    play.later(2.0)
    play.tell(ev.Ready(replica, 1, {"load": 1.5}))
    play.later(10.0)
    play.tell(ev.Settled(replica))
    play.later(60.0)
    play.tell(ev.Exited(replica, 0))
    assert noted(play.effects) == [
        ("starting", replica, None),
        ("woke", replica, 2.0),
        ("slept", replica, 60.0),
        ("ended", replica, 72.0),
    ]
    assert [note.phases for note in only(Note, play.effects) if note.phases] == [{"load": 1.5}]
    assert "(idle), 72.0 s after" in only(Note, play.effects)[-1].text


def test_a_start_that_fails_is_noted_with_how_long_it_took() -> None:
    play = Play()
    play.deployed()
    [replica] = starts(play.want("a"))
    play.later(3.0)
    play.tell(ev.Failed(replica, "no weights"))
    play.tell(ev.Exited(replica, 1))
    assert noted(play.effects) == [("starting", replica, None), ("start_failed", replica, 3.0), ("ended", replica, 3.0)]


def test_a_replica_that_dies_is_not_noted_as_ended() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    play.later(5.0)
    assert noted(play.tell(ev.Exited(replica, -9)))[0] == ("died", replica, 5.0)


def test_a_replica_that_dies_in_a_call_is_noted_as_died_also_where_its_connection_breaks_first() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    play.want("a")
    play.tell(ev.Settled(replica, True))
    play.later(1.0)
    [note] = only(Note, play.tell(ev.Exited(replica, -9)))
    assert (note.kind, "was killed by SIGKILL" in note.text) == ("died", True)


def test_a_replica_that_only_closed_its_connection_has_ended() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    play.want("a")
    play.tell(ev.Settled(replica, True))
    assert noted(play.tell(ev.Exited(replica, 0)))[0][:2] == ("ended", replica)


def test_a_trials_start_is_no_cold_start() -> None:
    play = Play()
    [replica] = starts(play.tell(ev.Tried("e", 1, Settings())))
    play.later(1.0)
    assert noted(play.tell(ev.Ready(replica, 1, {}))) == [("tried", replica, 1.0)]


def test_surplus_and_forced_sleep_are_noted_too() -> None:
    play = Play()
    play.deployed(max_replicas=2, concurrency=1, scale_window=10, sleep="deep")
    first = starts(play.want("a") + play.want("b"))
    for replica in first:
        play.tell(ev.Ready(replica, 1))
    for replica in first:
        play.tell(ev.Settled(replica))
    [surplus] = noted(play.later(30.0))
    assert (surplus[0], surplus[1] in first) == ("slept", True)
    [forced] = noted(play.tell(ev.Slept("e", False)))
    assert (forced[0], {forced[1], surplus[1]}) == ("slept", set(first))


def test_a_template_is_noted_when_it_is_kept_used_and_given_up() -> None:
    play = Play(1000 * MIB)
    play.deployed(memory=100 * MIB, sleep="template")
    [template] = kept(play.effects)
    play.later(0.5)
    assert noted(play.tell(ev.Kept(template, 20 * MIB))) == [("kept", template, 0.5)]
    effects = play.want("a")
    [start] = only(Note, effects)
    assert f"from the template {template}" in start.text
    play.tell(ev.Ready(starts(effects)[0], 1))
    assert noted(play.deployed(revision=2, sleep="deep"))[0] == ("dropped", template, None)


def test_a_template_that_dies_is_noted_as_lost_and_one_that_cannot_be_with_its_reason() -> None:
    play = Play()
    play.deployed(sleep="template")
    [template] = kept(play.effects)
    play.tell(ev.Kept(template, 20 * MIB))
    assert noted(play.tell(ev.Unkept(template))) == [("lost", template, None)]
    play.deployed("other", sleep="template")
    [refused] = [name for name in kept(play.effects) if name.startswith("other")]
    [note] = only(Note, play.tell(ev.Unkept(refused, "it has 3 threads")))
    assert (note.kind, note.replica) == ("no_template", refused)
    assert note.text.endswith("it has 3 threads")


def test_what_goes_for_lack_of_memory_is_noted_with_its_reason() -> None:
    play = Play(250 * MIB)
    for name in ("a", "b"):
        play.deployed(name, memory=200 * MIB, sleep="deep")
    replica = play.awake("a")
    play.tell(ev.Measured({replica: 200 * MIB}, 0))
    play.later(100.0)
    [note] = only(Note, play.want("call", "b"))
    assert (note.kind, note.replica, note.seconds) == ("evicted", replica, 100.0)
    assert play.schedule.room.evictions == 1
