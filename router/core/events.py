"""What the schedule is told: facts, one class each. Times are in `now` of the step, not in the event."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call asks for a slot. `queue_within` is the caller's own patience in seconds, None for the endpoint's."""

    endpoint: str
    call: str
    queue_within: float | None = None
    again: bool = False  # a replay: it goes to the head of the queue and is never turned away for a full one
    counted: bool = True  # as a call; the owner's wake is none


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """A parked call's caller has gone."""

    endpoint: str
    call: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A lease ended: the replica has really finished with it. `broken`: its connection broke under the call."""

    replica: str
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """A replica can answer. `limit` is the number of calls that its service takes at once, None for any number."""

    replica: str
    limit: int | None = None
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A replica says that it cannot start: one sentence, and its last log lines."""

    replica: str
    reason: str
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Late:
    """A start has taken longer than it may: the replica's last log lines so far."""

    replica: str
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Busy:
    """A replica has this many unfinished background tasks: they keep it awake."""

    replica: str
    tasks: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A replica's process is gone and reaped. `status` is negative for a signal.

    `why`: what is known beyond that, such as "was ended for lack of memory: ..."; "" for nothing.
    """

    replica: str
    status: int
    log: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A template has the revision's service loaded, and replicas can be forked from it. `memory` in bytes."""

    template: str
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Unkept:
    """A template's process is gone. With a `reason` the revision cannot have one: it is not asked for again."""

    template: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on a graphics card: those taken, all it has (0: unknown), and what processes have, as far as is known."""

    used: int
    total: int = 0
    by_pid: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes (PSS) of replicas and templates by id, and of the platform's own processes.

    `cards`: what graphics cards hold, by their UUID; None where nobody asked. One that does not answer is left out.
    """

    by_id: dict[str, int]
    platform: int = 0
    cards: dict[str, Held] | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A revision is to be started once, before it becomes live."""

    endpoint: str
    revision: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Nobody waits for the trial of this endpoint any more: a deploy that was interrupted, or that failed later."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """A revision is live. Its trial's replica, if there is one, becomes an ordinary replica.

    `memory`: bytes that a replica of it took at its trial, 0 when unknown.
    """

    endpoint: str
    revision: int
    settings: Settings
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """An endpoint is gone."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Slept:
    """The owner sends an endpoint to sleep now. Refused while calls run or wait, unless forced."""

    endpoint: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The router ends: nothing is admitted any more."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; something may be due."""


Event = (
    Wanted
    | CallerLeft
    | Settled
    | Ready
    | Failed
    | Late
    | Busy
    | Exited
    | Kept
    | Unkept
    | Measured
    | Tried
    | Abandoned
    | Deployed
    | Removed
    | Slept
    | ShutDown
    | Tick
)
