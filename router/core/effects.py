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
    """TERM the replica's process group, wait `within` seconds, KILL it, wait for its exit; Exited follows."""

    replica: str
    within: float


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
    """No replica of the endpoint runs any more."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something its owner would want to read in the endpoint's history."""

    endpoint: str
    kind: str  # woke, start_failed, slept, died, evicted, too_large
    text: str


Effect = Start | Stop | Keep | Drop | Grant | Refuse | Proved | Disproved | Asleep | Note
