"""What the schedule wants done: data, performed by the shell in order."""

from __future__ import annotations

from dataclasses import dataclass

from torpor.errors import TorporError


@dataclass(frozen=True, slots=True)
class Start:
    """Start this replica, from the template where one is named. Ready or Failed follows, in any case Exited at last."""

    replica: str
    endpoint: str
    revision: int
    template: str | None = None
    cards: tuple[str, ...] = ()  # the graphics cards that it has, by UUID


@dataclass(frozen=True, slots=True)
class Pause:
    """Freeze this replica, which has nothing to do. Failed follows where that cannot be done."""

    replica: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Let this replica go on. Ready or Failed follows, as after a start."""

    replica: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Make a template of the revision. Kept may follow, in any case Unkept at last."""

    template: str
    endpoint: str
    revision: int


@dataclass(frozen=True, slots=True)
class Drop:
    """End the template once nothing that was forked from it runs; Unkept follows."""

    template: str


@dataclass(frozen=True, slots=True)
class Stop:
    """TERM the replica's process group, wait `within` seconds, KILL it, wait for its exit; Exited follows. One that is
    frozen goes on first."""

    replica: str
    within: float


@dataclass(frozen=True, slots=True)
class Overdue:
    """The replica's start takes longer than it may; Late follows at once, with what the replica has written."""

    replica: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The call has a slot of the replica, reserved already."""

    call: str
    replica: str
    cold: bool
    parked: float  # seconds


@dataclass(frozen=True, slots=True)
class Refuse:
    """The call does not get a slot."""

    call: str
    error: TorporError


@dataclass(frozen=True, slots=True)
class Proved:
    """The trial's replica is ready: the revision can become live."""

    endpoint: str
    revision: int
    replica: str


@dataclass(frozen=True, slots=True)
class Disproved:
    """The trial's replica did not start."""

    endpoint: str
    revision: int
    error: TorporError


@dataclass(frozen=True, slots=True)
class Asleep:
    """No replica of the endpoint runs any more, or none of those that ran when it was sent to sleep or removed."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Note:
    """A transition of an endpoint, its replica or its template: for the log, the counts, the endpoint's history.

    starting  tried (ready, on trial)  woke (ready)  start_failed  slept  paused  evicted  too_large  died  ended
    kept, dropped, lost (a template; dropped, lost: or a paused replica)  no_template
    waits (a trial, for graphics cards)  unfreed (a card, after its replica's end)
    """

    endpoint: str
    kind: str
    text: str
    replica: str | None = None  # or template
    seconds: float | None = None  # of a start, of idleness, of a life
    phases: dict[str, float] | None = None  # of a start, seconds


Effect = Start | Stop | Pause | Resume | Keep | Drop | Overdue | Grant | Refuse | Proved | Disproved | Asleep | Note
