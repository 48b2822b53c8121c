"""A schedule with a clock in hand, for the core's tests: tell it facts, look at what it wants done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, TypeVar

from router.core import events as ev
from router.core.effects import (
    Disproved,
    Drop,
    Effect,
    Grant,
    Keep,
    Overdue,
    Pause,
    Proved,
    Refuse,
    Resume,
    Start,
    Stop,
)
from router.core.schedule import Schedule
from router.core.settings import Settings

E = TypeVar("E", bound=Effect)


def named() -> Callable[[str, int], str]:
    serial = count(1)
    return lambda endpoint, revision: f"{endpoint}-{revision}-{next(serial)}"


class Play:
    """`tell` steps the schedule and keeps the effects; `later` lets time pass, ticking at each deadline."""

    def __init__(self, memory: int | None = None, cards: Mapping[str, ev.Held] | None = None) -> None:
        self.schedule = Schedule(named(), memory, cards=cards or {})
        self.now = 100.0
        self.effects: list[Effect] = []

    def tell(self, event: ev.Event) -> list[Effect]:
        effects = self.schedule.step(event, self.now)
        for late in only(Overdue, effects):
            effects += self.schedule.step(ev.Late(late.replica, ("its last line",)), self.now)
        self.effects += effects
        return effects

    def later(self, seconds: float) -> list[Effect]:
        end, out = self.now + seconds, list[Effect]()
        while (at := self.schedule.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            out += self.tell(ev.Tick())
        self.now = end
        return out

    def deployed(self, name: str = "e", revision: int = 1, memory: int = 0, **settings: Any) -> list[Effect]:
        return self.tell(ev.Deployed(name, revision, Settings(**settings), memory))

    def want(self, call: str, name: str = "e", **rest: object) -> list[Effect]:
        return self.tell(ev.Wanted(name, call, **rest))  # type: ignore[arg-type]  # keywords of the dataclass

    def awake(self, name: str = "e", limit: int | None = None) -> str:
        """Wakes the endpoint with a call of its own that ends at once; the replica's id."""
        [start] = only(Start, self.want("waker", name))
        self.tell(ev.Ready(start.replica, limit))
        self.tell(ev.Settled(start.replica))
        return start.replica

    def state(self, replica: str) -> str:
        return str(self.schedule.replicas[replica].state)


def only(kind: type[E], effects: list[Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def starts(effects: list[Effect]) -> list[str]:
    return [e.replica for e in only(Start, effects)]


def stops(effects: list[Effect]) -> list[str]:
    return [e.replica for e in only(Stop, effects)]


def pauses(effects: list[Effect]) -> list[str]:
    return [e.replica for e in only(Pause, effects)]


def resumes(effects: list[Effect]) -> list[str]:
    return [e.replica for e in only(Resume, effects)]


def kept(effects: list[Effect]) -> list[str]:
    return [e.template for e in only(Keep, effects)]


def dropped(effects: list[Effect]) -> list[str]:
    return [e.template for e in only(Drop, effects)]


def grants(effects: list[Effect]) -> list[str]:
    return [e.call for e in only(Grant, effects)]


def refusals(effects: list[Effect]) -> dict[str, str]:
    return {e.call: e.error.code for e in only(Refuse, effects)}


def verdicts(effects: list[Effect]) -> list[str]:
    return [type(e).__name__ for e in effects if isinstance(e, Proved | Disproved)]
