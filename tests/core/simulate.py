"""Traffic against a schedule whose clock is advanced by hand: starts take a time, calls take a time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from router.core import events as ev
from router.core.effects import Drop, Effect, Grant, Keep, Pause, Refuse, Resume, Start, Stop
from tests.core.play import Play

RESUME_TAKES = 0.02  # seconds


@dataclass
class Load:
    """One call: when it comes (seconds), to whom, and how long a replica works on it."""

    at: float
    takes: float
    endpoint: str = "e"


@dataclass
class Seen:
    """What happened. Times in seconds since the first event."""

    starts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    resumes: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)  # of each endpoint's calls, until their grant
    counts: list[tuple[float, int]] = field(default_factory=list)  # replicas that run, at each change
    loading: float = 0.0  # seconds of all starts together


class Simulation:
    """Plays events in the order of their times; a replica is ready `start_takes` after its start."""

    def __init__(self, play: Play, start_takes: float = 2.0, size: int = 0) -> None:
        self.play = play
        self.seen = Seen()
        self._start_takes = start_takes
        self._size = size
        self._queue: list[tuple[float, int, ev.Event | Load]] = []
        self._serial = 0
        self._began = play.now
        self._takes: dict[str, float] = {}
        self._ending: set[str] = set()
        self._asked: dict[str, tuple[float, str]] = {}
        self._running = 0

    def run(self, loads: Iterable[Load], until: float) -> Seen:
        for load in loads:
            self._at(load.at, load)
        while True:
            due = self.play.schedule.next_deadline()
            tick = math.inf if due is None else due - self._began
            event = self._queue[0][0] if self._queue else math.inf
            if min(tick, event) > until:
                break
            self.play.now = max(self.play.now, self._began + min(tick, event))
            if tick <= event:
                self._perform(self.play.tell(ev.Tick()))
            else:
                self._happen(heapq.heappop(self._queue)[2])
        return self.seen

    def _at(self, at: float, what: ev.Event | Load) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (at, self._serial, what))

    def _happen(self, what: ev.Event | Load) -> None:
        if isinstance(what, Load):
            call = f"call{self._serial}-{len(self._takes)}"
            self._takes[call] = what.takes
            self._asked[call] = (self._time, what.endpoint)
            what = ev.Wanted(what.endpoint, call)
        if isinstance(what, ev.Ready) and what.replica in self._ending:
            return
        self._perform(self.play.tell(what))
        if isinstance(what, ev.Ready) and self._size:
            alive = [r.id for r in self.play.schedule.replicas.values() if str(r.state) != "stopped"]
            self._perform(self.play.tell(ev.Measured(dict.fromkeys(alive, self._size))))

    @property
    def _time(self) -> float:
        return self.play.now - self._began

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Start(replica=replica):
                    self._count(1, self.seen.starts)
                    self.seen.loading += self._start_takes
                    self._at(self._time + self._start_takes, ev.Ready(replica))
                case Pause():
                    self._count(-1, self.seen.pauses)
                case Resume(replica=replica):
                    self._count(1, self.seen.resumes)
                    self._at(self._time + RESUME_TAKES, ev.Ready(replica))
                case Stop(replica=replica):
                    self._ending.add(replica)
                    self._count(-1, self.seen.stops)
                    self._at(self._time + 0.05, ev.Exited(replica, 0))
                case Grant(call=call, replica=replica):
                    asked, endpoint = self._asked.pop(call)
                    self.seen.waits.setdefault(endpoint, []).append(self._time - asked)
                    self._at(self._time + self._takes.pop(call), ev.Settled(replica))
                case Refuse(call=call, error=error):
                    self.seen.refused[error.code] = self.seen.refused.get(error.code, 0) + 1
                    self._asked.pop(call)
                case Keep(template=template):
                    self._at(self._time + 1, ev.Kept(template))
                case Drop(template=template):
                    self._at(self._time + 0.05, ev.Unkept(template))

    def _count(self, change: int, times: list[float]) -> None:
        self._running += change
        times.append(self._time)
        self.seen.counts.append((self._time, self._running))
