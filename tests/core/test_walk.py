"""A seeded random walk over everything that can happen, with the invariants checked after each step."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from router.core import events as ev
from router.core.cards import CLEAR_WITHIN
from router.core.effects import Disproved, Drop, Effect, Grant, Keep, Pause, Proved, Refuse, Resume, Start, Stop
from router.core.lifecycle import IllegalMove
from router.core.settings import Settings
from tests.core.play import Play
from torpor.errors import TorporError
from torpor.wire import State

NAMES = ("a", "b", "c")
LIMIT = 250
SIZE = 100  # of a replica: two fit, and a template or two
CLEAN, FULL = ev.Held(1 << 20, 1 << 30), ev.Held(1 << 29, 1 << 30)  # a card


class World:
    """What is outside of the schedule: processes that run, callers that wait, leases that are held."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cards = ("x", "y") if seed % 3 == 0 else ()
        self.play = Play(memory=LIMIT if seed % 2 else None, cards=dict.fromkeys(self.cards, CLEAN))
        self.rare = 0.05 if seed % 4 >= 2 else 1.0  # in half of the worlds little goes wrong, and little is deployed
        self.templates: set[str] = set()
        self.loaded: set[str] = set()
        self.told_to_end: set[str] = set()
        self.running: set[str] = set()
        self.ready: set[str] = set()
        self.frozen: set[str] = set()
        self.told_to_stop: set[str] = set()
        self.held: dict[str, str] = {}  # card -> replica
        self.dirty: dict[str, float] = {}  # card -> when its replica has ended, until it is measured clean
        self.seen: Counter[str] = Counter()
        self.waiting: dict[str, str] = {}
        self.leases: list[str] = []
        self.answered: set[str] = set()
        self.proved: dict[str, int] = {}
        self.serial = 0

    def tell(self, event: ev.Event) -> None:
        before = snapshot(self.play)
        try:
            effects = self.play.tell(event)
        except (TorporError, IllegalMove, KeyError):
            assert snapshot(self.play) == before, f"{event} raised and changed something"
            return
        for effect in effects:
            self.seen[type(effect).__name__] += 1
            self.perform(effect)
        self.check()

    def perform(self, effect: Effect) -> None:
        match effect:
            case Start(replica=replica, template=template, cards=cards):
                assert replica not in self.running
                assert len(cards) == self.play.schedule.replicas[replica].settings.gpu
                for card in cards:
                    assert card not in self.held, "a card of two replicas"
                    assert card not in self.dirty, "handed on before it was clean"
                    self.held[card] = replica
                self.seen["card"] += len(cards)
                assert template is None or template in self.loaded - self.told_to_end
                self.running.add(replica)
            case Pause(replica=replica):
                assert replica in self.ready - self.frozen - self.told_to_stop
                assert replica not in self.leases
                self.ready.remove(replica)
                self.frozen.add(replica)
            case Resume(replica=replica):
                assert replica not in self.told_to_stop
                self.frozen.remove(replica)
            case Keep(template=template):
                assert template not in self.templates
                self.templates.add(template)
            case Drop(template=template):
                assert template in self.templates
                assert template not in self.told_to_end, "dropped twice"
                self.told_to_end.add(template)
            case Stop(replica=replica):
                assert replica in self.running
                assert replica not in self.told_to_stop, "stopped twice"
                self.told_to_stop.add(replica)
                self.frozen.discard(replica)
            case Grant(call=call, replica=replica):
                self.answer(call)
                assert replica in self.ready
                self.leases.append(replica)
            case Refuse(call=call):
                self.answer(call)
            case Proved(endpoint=endpoint, revision=revision):
                self.proved[endpoint] = revision
            case Disproved(endpoint=endpoint):
                self.proved.pop(endpoint, None)

    def answer(self, call: str) -> None:
        assert call in self.waiting, f"{call} does not wait"
        assert call not in self.answered
        self.answered.add(call)
        del self.waiting[call]

    def check(self) -> None:
        schedule = self.play.schedule
        parked = {call for line in schedule.lines.values() for call in line.parked}
        assert parked == set(self.waiting) == set(schedule.parked_at)
        assert sum(r.in_flight for r in schedule.replicas.values()) == len(self.leases)
        alive = {r.id for r in schedule.replicas.values() if r.state is not State.STOPPED and not r.waits}
        assert alive == self.running
        for replica in schedule.replicas.values():
            assert replica.in_flight == self.leases.count(replica.id)
            assert (replica.state is State.STOPPING) <= (replica.id in self.told_to_stop)
            assert set(replica.cards) == {card for card, holder in self.held.items() if holder == replica.id}
            if replica.id in self.told_to_stop and replica.id in self.running:
                assert replica.state is State.STOPPING
        assert {r.id for r in schedule.replicas.values() if r.state is State.PAUSED} == self.frozen
        assert set(schedule.shelf.templates) == self.templates
        for line in schedule.lines.values():
            assert line.template is None or line.template.id in self.templates - self.told_to_end
            alive_now = list(line.current(State.STARTING, State.READY, State.DRAINING))
            assert len(alive_now) <= line.settings.max_replicas
            if (paused := line.paused()) is not None:
                assert not alive_now
                assert not line.parked
                assert line.name not in schedule.room.hungry
                assert not paused.busy
            if line.parked:
                hungry = line.name in schedule.room.hungry
                assert alive_now or hungry or any(r.why for r in line.replicas.values()), "calls wait and nobody comes"
                assert not any(r.free for r in line.current(State.READY)), "a call waits beside a free slot"

    def step(self) -> None:
        rng, name = self.rng, self.rng.choice(NAMES)
        self.play.now += rng.choice((0, 0, 0.01, 0.5, 3))
        self.dirty = {card: ended for card, ended in self.dirty.items() if self.play.now - ended < CLEAR_WITHIN}
        number = rng.randrange(18)
        if number < 7:
            self.call(number, name)
        elif 10 <= number < 13:
            self.owner(number, name)
        else:
            self.live(number)

    def call(self, number: int, name: str) -> None:
        """A call comes, goes or ends; here and below, time passes where nothing else can happen."""
        rng = self.rng
        match number:
            case 0 | 1 | 2 | 3:
                self.serial += 1
                call = f"call{self.serial}"
                self.waiting[call] = name
                self.tell(ev.Wanted(name, call, rng.choice((None, None, 0, 2)), again=rng.random() < 0.1))
            case 4 if self.waiting:
                call = rng.choice(sorted(self.waiting))
                endpoint = self.waiting.pop(call)
                self.tell(ev.CallerLeft(endpoint, call))
            case 5 | 6 if self.leases:
                lease = rng.choice(self.leases)
                self.leases.remove(lease)
                self.tell(ev.Settled(lease, broken=rng.random() < 0.1))
            case _:
                self.tell(ev.Tick())

    def owner(self, number: int, name: str) -> None:
        """Somebody who may asks for something."""
        rng = self.rng
        match number:
            case 10 if rng.random() < 0.3:
                self.tell(ev.Slept(name, force=rng.random() < 0.5))
            case 11 if rng.random() < self.rare:
                self.deploy(name)
            case 12 if rng.random() < 0.15 * self.rare:
                self.tell(ev.Removed(name))
            case _:
                self.tell(ev.Tick())

    def live(self, number: int) -> None:
        """A replica or a template gets on, or does not."""
        rng = self.rng
        match number:
            case 7 | 8 if fresh := sorted(self.running - self.ready - self.frozen):
                replica = rng.choice(fresh)
                self.ready.add(replica)
                if rng.random() > 0.2 * self.rare:
                    self.tell(ev.Ready(replica, rng.choice((None, 1, 3))))
                else:
                    self.tell(ev.Failed(replica, "as it happens"))
            case 9 if self.told_to_stop & self.running or (self.running and rng.random() < self.rare):
                dying = sorted(self.told_to_stop & self.running) or sorted(self.running)
                replica = rng.choice(dying)
                self.running.remove(replica)
                self.frozen.discard(replica)
                for card in [card for card, holder in self.held.items() if holder == replica]:
                    del self.held[card]
                    self.dirty[card] = self.play.now
                self.tell(ev.Exited(replica, rng.choice((0, 1, -9))))
            case 13 if self.running | self.templates or self.dirty:
                alive = sorted(self.running) + sorted(self.templates)
                for card in [card for card in self.dirty if rng.random() < 0.5]:
                    del self.dirty[card]
                cards = {card: FULL if card in {**self.held, **self.dirty} else CLEAN for card in self.cards}
                self.tell(ev.Measured({each: self.size(each) for each in alive}, 10, cards if self.cards else None))
            case 14 if making := sorted(self.templates - self.loaded):
                template = rng.choice(making)
                self.loaded.add(template)
                self.tell(ev.Kept(template, SIZE // 5))
            case 15 if self.templates and (self.told_to_end or rng.random() < 0.2):
                template = rng.choice(sorted(self.told_to_end & self.templates) or sorted(self.templates))
                self.templates.remove(template)
                self.tell(ev.Unkept(template, rng.choice((None, None, "it holds a socket"))))
            case 16 if self.frozen and rng.random() < 0.3:
                replica = rng.choice(sorted(self.frozen))
                self.tell(rng.choice((ev.Failed(replica, "it cannot be frozen"), ev.Busy(replica, 1))))
            case 16 if up := sorted(self.ready & self.running):
                self.tell(ev.Busy(rng.choice(up), rng.choice((0, 0, 1))))
            case _:
                self.tell(ev.Tick())

    def size(self, name: str) -> int:
        if name in self.templates:
            return SIZE // 5
        return SIZE * (self.rng.choice((1, 1, 1, 3)) if self.rare == 1.0 else 1)

    def deploy(self, name: str) -> None:
        settings = Settings(
            idle_after=self.rng.choice((0.1, 5)),
            start_within=self.rng.choice((2, 60)),
            concurrency=self.rng.choice((0, 1, 2)),
            max_replicas=self.rng.choice((1, 1, 3)),
            max_queue=self.rng.choice((1, 8)),
            drain_within=self.rng.choice((0.5, 30)),
            min_replicas=self.rng.choice((0, 0, 0, 1)),
            sleep=self.rng.choice(("auto", "deep", "template", "pause", "pause")),
            keep_for=self.rng.choice((0.0, 1.0, 60.0)),
            scale_window=self.rng.choice((1.0, 20.0)),
            memory_limit=self.rng.choice((0, 0, 2 * SIZE)),
            gpu=self.rng.choice((0, 0, 1, 1, 2, 3)) if self.cards else 0,
        )
        self.serial += 1
        if name in self.proved:
            self.tell(ev.Deployed(name, self.proved.pop(name), settings, self.rng.choice((0, SIZE))))
        elif self.rng.random() < 0.8:
            self.tell(ev.Tried(name, self.serial, settings))
        else:
            self.tell(ev.Abandoned(name))


def walked(seed: int) -> World:
    world = World(seed)
    for name in NAMES:
        world.tell(ev.Deployed(name, 0, Settings(idle_after=1, sleep="pause" if seed % 3 else "auto")))
    for _ in range(800):
        world.step()
    return world


def snapshot(play: Play) -> str:
    schedule = play.schedule
    shelf, room = schedule.shelf.templates, schedule.room.hungry
    return repr((schedule.lines, schedule.replicas, schedule.parked_at, shelf, room, schedule.cards.all))


def test_the_walk_comes_by_every_rung() -> None:
    seen: Counter[str] = Counter()
    for seed in range(16):
        seen += walked(seed).seen
    assert min(seen[kind] for kind in ("Start", "Stop", "Pause", "Resume", "Grant", "Refuse", "card")) > 30, seen


@pytest.mark.parametrize("seed", range(16))
def test_the_invariants_hold_on_a_random_walk(seed: int) -> None:
    world = walked(seed)
    world.tell(ev.ShutDown())
    for _ in range(3):
        world.play.now += 100
        world.tell(ev.Tick())
    assert world.running == world.told_to_stop & world.running, "what runs at shutdown was told to stop"
    assert not world.waiting
    assert world.templates <= world.told_to_end, "what was kept at shutdown was told to end"
