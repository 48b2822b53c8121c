"""The common call's short steps do what the events do, or nothing."""

from __future__ import annotations

import random

import pytest

from router.core import events as ev
from router.core.effects import Grant
from router.core.settings import Settings
from tests.core.play import Play, grants, stops
from torpor.wire import State


def state(play: Play) -> str:
    return repr(play.schedule.lines) + repr(play.schedule.replicas) + repr(play.schedule.parked_at)


class Pair:
    """Two schedules with one life: `plain` is told events only, `short` takes the short steps wherever it can."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.plain, self.short = Play(), Play()
        self.calls = self.reserved = self.released = 0

    def tell(self, event: ev.Event) -> None:
        assert repr(self.plain.tell(event)) == repr(self.short.tell(event))

    def want(self) -> None:
        self.calls += 1
        wanted = ev.Wanted("e", f"c{self.calls}")
        before = state(self.short)
        replica = self.short.schedule.slots.reserve("e", self.short.now)
        if replica is None:
            assert state(self.short) == before
            self.tell(wanted)
        else:
            self.reserved += 1
            assert self.plain.tell(wanted) == [Grant(wanted.call, replica.id, False, 0.0)]

    def settle(self, replica: str, broken: bool) -> None:
        before = state(self.short)
        if not broken and self.short.schedule.slots.release(replica, self.short.now):
            self.released += 1
            assert self.plain.tell(ev.Settled(replica)) == []
        else:
            assert state(self.short) == before
            self.tell(ev.Settled(replica, broken))

    def step(self) -> None:
        rng, replicas = self.rng, list(self.plain.schedule.replicas.values())
        match rng.randrange(14):
            case 0 | 1 | 2 | 3:
                self.want()
            case 4 | 5 | 6 | 7 if busy := [r.id for r in replicas if r.in_flight]:
                self.settle(rng.choice(busy), broken=rng.random() < 0.1)
            case 8 | 9 if starting := [r.id for r in replicas if r.state is State.STARTING]:
                self.tell(ev.Ready(starting[0], rng.choice((None, 1, 2))))
            case 10 if stopping := [r.id for r in replicas if r.state is State.STOPPING]:
                self.tell(ev.Exited(stopping[0], 0))
            case 10 if paused := [r.id for r in replicas if r.state is State.PAUSED]:
                self.tell(ev.Exited(paused[0], -9))
            case 11 if rng.random() < 0.2:
                self.tell(
                    ev.Deployed("e", self.calls, Settings(idle_after=2, max_replicas=2, drain_within=3, sleep="pause"))
                )
            case _:
                seconds = rng.choice((0.1, 1, 4))
                # Two replicas that are due at the same instant may be told in either order.
                assert sorted(map(repr, self.plain.later(seconds))) == sorted(map(repr, self.short.later(seconds)))
        assert state(self.plain) == state(self.short)


@pytest.mark.parametrize("sleep", ["auto", "pause"])
@pytest.mark.parametrize("seed", range(8))
def test_with_and_without_events_a_schedule_lives_the_same_life(seed: int, sleep: str) -> None:
    pair = Pair(seed)
    pair.tell(ev.Deployed("e", 0, Settings(idle_after=2, max_replicas=2, concurrency=1, drain_within=3, sleep=sleep)))
    for _ in range(1500):
        pair.step()
    assert min(pair.reserved, pair.released) > 20, "the short steps were hardly taken"


def test_a_slot_is_reserved_in_the_step_that_chooses_it() -> None:
    play = Play()
    play.deployed(concurrency=1)
    replica = play.awake()
    chosen = play.schedule.slots.reserve("e", play.now)
    assert chosen is not None
    assert (chosen.id, chosen.in_flight) == (replica, 1)
    assert play.schedule.slots.reserve("e", play.now) is None


def test_a_call_that_waits_gets_the_slot_that_is_given_back() -> None:
    play = Play()
    play.deployed(concurrency=1)
    replica = play.awake()
    play.schedule.slots.reserve("e", play.now)
    play.want("parked")
    assert not play.schedule.slots.release(replica, play.now)
    assert grants(play.tell(ev.Settled(replica))) == ["parked"]


def test_the_idle_time_of_a_slot_that_was_reserved_starts_when_it_is_given_back() -> None:
    play = Play()
    play.deployed(idle_after=5)
    replica = play.awake()
    play.schedule.slots.reserve("e", play.now)
    assert stops(play.later(1000)) == []
    play.schedule.slots.release(replica, play.now)
    assert stops(play.later(4.9)) == []
    assert stops(play.later(0.2)) == [replica]


def test_nothing_is_reserved_of_what_is_on_its_way_out() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    assert play.schedule.slots.reserve("nobody", play.now) is None
    play.want("runs")
    play.tell(ev.ShutDown())
    assert play.schedule.slots.reserve("e", play.now) is None
    assert not play.schedule.slots.release(replica, play.now)
    assert stops(play.tell(ev.Settled(replica))) == [replica]


def test_a_slot_given_back_twice_changes_nothing() -> None:
    play = Play()
    play.deployed()
    replica = play.awake()
    before = state(play)
    assert not play.schedule.slots.release(replica, play.now)
    assert not play.schedule.slots.release("nobody", play.now)
    assert state(play) == before
