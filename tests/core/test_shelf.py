"""Templates: who keeps one, what is forked from it, when it goes."""

from __future__ import annotations

from typing import Any

from router.core import events as ev
from router.core.effects import Start
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
