"""Templates: who keeps one, what is forked from it, when it goes."""

from __future__ import annotations

from typing import Any

from router.core import events as ev
from router.core.effects import Note, Start
from router.core.settings import Settings
from tests.core.play import Play, dropped, kept, only, starts

MB = 1 << 20


def asleep_with_template(play: Play, **settings: Any) -> str:
    play.deployed(idle_after=1, **settings)
    replica = play.awake()
    [template] = kept(play.later(1))
    play.tell(ev.Exited(replica, 0))
    play.tell(ev.Kept(template, 13 * MB))
    return template


def test_an_endpoint_that_falls_asleep_keeps_a_template_and_wakes_by_a_fork_of_it() -> None:
    play = Play()
    template = asleep_with_template(play)
    [start] = only(Start, play.want("a"))
    assert start.template == template


def test_a_template_is_kept_while_its_replicas_run() -> None:
    play = Play()
    asleep_with_template(play)
    [replica] = starts(play.want("a"))
    play.tell(ev.Ready(replica))
    play.tell(ev.Settled(replica))
    effects = play.later(1)
    assert (kept(effects), dropped(effects)) == ([], [])


def test_one_that_is_not_loaded_yet_is_not_waited_for() -> None:
    play = Play()
    play.deployed(idle_after=1)
    play.awake()
    assert len(kept(play.later(1))) == 1
    [start] = only(Start, play.want("a"))
    assert start.template is None


def test_deep_sleep_keeps_none() -> None:
    play = Play()
    play.deployed(idle_after=1, sleep="deep")
    play.awake()
    assert kept(play.later(1)) == []


def test_a_trial_leaves_a_template_for_the_first_call_and_a_restart_none_but_where_it_is_asked_for() -> None:
    play = Play()
    [trial] = starts(play.tell(ev.Tried("e", 1, Settings())))
    play.tell(ev.Ready(trial))
    assert len(kept(play.deployed())) == 1
    assert kept(play.deployed("known")) == []
    assert len(kept(play.deployed("wanted", sleep="template"))) == 1


def test_a_revision_that_cannot_have_one_is_not_asked_again_and_says_why() -> None:
    play = Play()
    template = asleep_with_template(play)
    play.tell(ev.Unkept(template, "it runs 3 threads"))
    play.awake()
    assert kept(play.later(1)) == []
    assert play.schedule.lines["e"].no_template == "it runs 3 threads"
    play.deployed(revision=2, sleep="template")
    assert play.schedule.lines["e"].no_template is None


def test_one_that_died_is_made_again_at_the_next_sleep() -> None:
    play = Play()
    template = asleep_with_template(play)
    play.tell(ev.Unkept(template))
    [start] = only(Start, play.want("a"))
    assert start.template is None
    play.tell(ev.Ready(start.replica))
    play.tell(ev.Settled(start.replica))
    assert len(kept(play.later(1))) == 1


def test_the_old_revisions_template_goes_with_it_and_so_does_a_removed_endpoints() -> None:
    play = Play()
    template = asleep_with_template(play)
    assert dropped(play.deployed(revision=2)) == [template]
    play.tell(ev.Unkept(template))
    replica = play.awake()
    play.tell(ev.Slept("e"))
    play.tell(ev.Exited(replica, 0))
    assert len(dropped(play.tell(ev.Removed("e")))) == 1


def test_no_template_is_made_where_memory_is_short() -> None:
    play = Play(memory=40 * MB)
    play.deployed(idle_after=1, memory=20 * MB)
    play.awake()
    assert kept(play.later(1)) == []


def test_all_templates_end_with_the_router() -> None:
    play = Play()
    template = asleep_with_template(play)
    assert dropped(play.tell(ev.ShutDown())) == [template]


def test_keep_for_ends_a_template_that_its_endpoint_did_not_wake_from() -> None:
    play = Play()
    template = asleep_with_template(play, keep_for=60)
    assert dropped(play.later(59)) == []
    effects = play.later(1)
    assert dropped(effects) == [template]
    [note] = only(Note, effects)
    assert (note.kind, note.text) == ("dropped", f"template {template} goes: it was not needed for 60 s (keep_for)")
    play.tell(ev.Unkept(template))
    assert play.schedule.lines["e"].bare == "its template went: it was not needed for 60 s (keep_for)"
    assert play.schedule.next_deadline() is None


def test_keep_for_counts_from_the_last_use() -> None:
    play = Play()
    template = asleep_with_template(play, keep_for=60)
    play.later(50)
    replica = play.awake()
    assert dropped(play.later(1)) == []
    play.tell(ev.Exited(replica, 0))
    assert dropped(play.later(59)) == []
    assert dropped(play.later(1)) == [template]


def test_an_endpoint_that_is_awake_needs_its_template() -> None:
    play = Play()
    template = asleep_with_template(play, keep_for=60)
    [replica] = starts(play.want("long"))
    play.tell(ev.Ready(replica))
    assert dropped(play.later(1000)) == []
    play.tell(ev.Exited(replica, -9))  # it fell asleep without having been idle
    assert dropped(play.later(120)) == [template]


def test_keep_for_0_is_for_ever_and_one_that_is_given_up_is_not_given_up_again() -> None:
    play = Play()
    asleep_with_template(play, keep_for=0)
    assert dropped(play.later(1e9)) == []
    play.deployed("other", sleep="template", keep_for=60)
    [template] = [name for name in kept(play.effects) if name.startswith("other")]
    play.tell(ev.Removed("other"))
    play.tell(ev.Kept(template, 13 * MB))
    assert dropped(play.later(100)) == []


def test_why_nothing_is_kept_is_remembered_until_something_is() -> None:
    play = Play(memory=100 * MB)
    play.deployed(idle_after=1, memory=20 * MB)
    line = play.schedule.lines["e"]
    replica = play.awake()
    play.tell(ev.Measured({replica: 20 * MB}, 70 * MB))
    assert kept(play.later(1)) == []
    assert line.bare == "no memory was left for its template"
    play.tell(ev.Exited(replica, 0))
    assert line.ended_at == play.now
    play.tell(ev.Measured({}, 10 * MB))
    replica = play.awake()
    [template] = kept(play.later(1))
    assert line.bare == ""
    play.tell(ev.Kept(template, 13 * MB))
    play.later(5)
    play.tell(ev.Unkept(template))
    assert (line.bare, line.ended_at) == ("its template died", play.now)
