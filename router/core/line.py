"""One endpoint as the schedule sees it: its replicas, its queue, its record of starts."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from router.core.lifecycle import Move, moved
from router.core.scale import TARGET, Window, worth
from router.core.settings import Settings
from torpor.errors import StartFailed, StartTimeout
from torpor.wire import RETRY_AFTER_MAX, State

BACK_OFF_FIRST = 1.0  # seconds after a failed start; doubles with each further one
BACK_OFF_MAX = 60.0
STARTS_REMEMBERED = 20
_READY = State.READY  # an enum's attribute is slow to read
_ASLEEP = (State.STOPPED, State.PAUSED)


class Why(StrEnum):
    """Why a replica drains. Only an idle one is taken back by a call that comes meanwhile."""

    IDLE = "idle"
    OUTDATED = "a newer revision is live"
    BROKEN = "its connection broke"
    REMOVED = "the endpoint was removed"
    SHUTDOWN = "the router ends"
    ROOM = "its memory is needed"
    SLEPT = "it was sent to sleep"
    TOO_LARGE = "it takes more memory than it may"
    UNUSED = "it was not needed for keep_for"
    UNPAUSED = "it could not be paused"


@dataclass(slots=True)
class Replica:
    """One running copy of a revision. `in_flight` is the only count of its calls; the schedule alone writes it."""

    id: str
    endpoint: str
    revision: int
    settings: Settings  # of its revision
    since: float  # when its state began
    state: State = State.STOPPED
    trial: bool = False
    in_flight: int = 0
    tasks: int = 0  # unfinished background tasks
    limit: int | None = None  # calls at once; None: any number
    why: Why | None = None  # it drains
    born_at: float = 0.0
    started_at: float = 0.0  # or resumed
    resumed: bool = False  # it was ready once, and then paused
    ready_at: float = 0.0
    last_finish: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    memory: int = 0  # bytes as last measured, 0: not yet
    template: str | None = None  # it was forked from
    cards: tuple[str, ...] = ()  # the graphics cards that are its own
    gpu_memory: int = 0  # bytes on them, as last measured
    waits: bool = False  # a trial that is not started yet, for want of cards

    @property
    def free(self) -> bool:
        """It could run one more call."""
        return self.limit is None or self.in_flight < self.limit

    @property
    def busy(self) -> bool:
        return self.in_flight > 0 or self.tasks > 0

    def move(self, move: Move, now: float) -> None:
        self.state = moved(self.state, move)
        self.since = now


@dataclass(slots=True)
class Parked:
    """A call that waits. `refuse_at` is the instant at which it has waited long enough."""

    call: str
    since: float
    refuse_at: float


@dataclass(slots=True)
class Template:
    """A process that has a revision's service loaded and serves no calls: replicas are forked from it."""

    id: str
    endpoint: str
    revision: int
    used_at: float
    since: float = 0.0  # when it was loaded
    kept: bool = False  # it is loaded
    ending: bool = False  # it was told to end
    memory: int = 0


@dataclass(slots=True)
class Line:
    """One endpoint. `revision` is the live one, None while its first deploy is on trial."""

    name: str
    settings: Settings
    revision: int | None = None
    replicas: dict[str, Replica] = field(default_factory=dict)
    parked: OrderedDict[str, Parked] = field(default_factory=OrderedDict)
    removed: bool = False
    leaving: set[str] = field(default_factory=set)  # replicas whose end somebody waits for
    failures: int = 0  # starts that failed in a row
    retry_at: float = 0.0  # no start before this instant
    error: StartFailed | StartTimeout | None = None  # of the last failed start, None once one succeeded
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=STARTS_REMEMBERED))
    calls: int = 0
    cold_starts: int = 0
    last_call: float | None = None
    limit: int | None = None  # of the last replica that became ready
    memory: int = 0  # bytes that a replica is expected to take, by measurement; 0: unknown
    gpu_memory: int = 0  # bytes that a replica is expected to take on a card, by measurement; 0: unknown
    template: Template | None = None  # of the live revision
    no_template: str | None = None  # why the live revision cannot have one
    bare: str = ""  # why nothing of it is kept while it sleeps, where something could be
    ended_at: float | None = None  # when a replica of it ended last, or what was kept
    window: Window = field(default_factory=lambda: Window(60.0))
    went: deque[float] = field(default_factory=deque)  # when replicas were stopped as surplus, within the window

    def current(self, *states: State) -> Iterator[Replica]:
        """The live revision's replicas in these states, less a trial's and those that are on their way out."""
        for replica in self.replicas.values():
            leaving = replica.trial or (replica.why is not None and replica.why is not Why.IDLE)
            if replica.state in states and replica.revision == self.revision and not leaving:
                yield replica

    def trial(self) -> Replica | None:
        return next((r for r in self.replicas.values() if r.trial and r.state is not State.STOPPED), None)

    def lost(self, replica: Replica, how: str) -> None:
        """Remembers why nothing is kept, where a replica of the live revision has gone."""
        if replica.revision == self.revision and not replica.trial:
            self.bare = how

    def paused(self) -> Replica | None:
        """The live revision's frozen replica."""
        return next(self.current(State.PAUSED), None)

    def choose(self) -> Replica | None:
        """The least loaded replica with a free slot; a draining one that may be taken back comes last."""
        return self.ready() or next((r for r in self.current(State.DRAINING) if r.free), None)

    def ready(self) -> Replica | None:
        """The least loaded ready replica with a free slot, in a plain loop: every call comes by here."""
        best: Replica | None = None
        for r in self.replicas.values():
            if r.state is not _READY or r.revision != self.revision or r.trial:
                continue
            if (r.limit is None or r.in_flight < r.limit) and (best is None or r.in_flight < best.in_flight):
                best = r
        return best

    def alive(self) -> int:
        """Replicas that serve or will: those that start, are ready, or can be taken back."""
        return sum(1 for _ in self.current(State.STARTING, State.READY, State.DRAINING))

    def worth(self) -> int:
        """The replicas that what runs and waits now is worth."""
        load = len(self.parked) + sum(r.in_flight for r in self.current(State.READY, State.DRAINING))
        return worth(load, self.settings.concurrency or self.limit or TARGET)

    def short(self) -> bool:
        """Whether one more replica is needed and allowed."""
        alive = self.alive()
        if alive >= self.settings.max_replicas:
            return False
        return alive < max(self.settings.min_replicas, self.worth())

    def usable_template(self) -> Template | None:
        return self.template if self.template is not None and self.template.kept and not self.template.ending else None

    def wake_takes(self) -> float:
        """Seconds that a start took at the median of the last ones; 0 when none is known."""
        return sorted(self.starts)[len(self.starts) // 2] if self.starts else 0.0

    def asleep(self) -> bool:
        return all(r.state in _ASLEEP for r in self.replicas.values())

    def in_flight(self) -> int:
        return sum(r.in_flight for r in self.replicas.values())

    def retry_after(self, now: float) -> float:
        """Seconds until a repeated call is likely to be served: the measured p90 of a start, less what has passed."""
        if not self.starts:
            return 1.0
        ordered = sorted(self.starts)
        p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
        begun = [r.started_at for r in self.current(State.STARTING)]
        return min(RETRY_AFTER_MAX, max(1.0, p90 - (now - min(begun)) if begun else p90))

    def start_failed(self, error: StartFailed | StartTimeout, now: float) -> None:
        """Records a failed start and puts the next one off."""
        self.failures += 1
        back_off = min(BACK_OFF_MAX, BACK_OFF_FIRST * 2.0 ** min(self.failures - 1, 16))
        self.retry_at = now + back_off
        error.retry_after = back_off
        self.error = error

    def backing_off(self, now: float) -> StartFailed | StartTimeout | None:
        """The error of the last failed start while a new one is put off, with the seconds left."""
        if self.error is None or now >= self.retry_at:
            return None
        return type(self.error)(self.error.message, retry_after=self.retry_at - now, detail=self.error.detail)
