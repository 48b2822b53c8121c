"""What the proxy asks of the engine and what it is told: see `docs/protocols.md`, "Proxy and engine".

Everything here is synchronous and runs on the router's one event loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torpor.errors import TorporError

if TYPE_CHECKING:
    from router.proxy.head import RequestHead


class Target(NamedTuple):
    """Where a call goes: the endpoint or route, and the path that its replica sees (query included).

    Without an endpoint it is a read that the control plane answers under that path.
    """

    endpoint: str
    path: bytes
    split: Any = None  # the endpoint has several revisions: `Calls.share` says which one this call goes to


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one call to one slot of one replica. Calls that differ in nothing may be given the same object."""

    replica: str  # replica id
    address: str  # path of its Unix socket
    cold: bool  # this call waited for a start
    parked: float  # seconds parked
    phases: dict[str, float]  # of the start, seconds; empty when warm


class Outcome(StrEnum):
    """How a lease ended."""

    DONE = "done"
    FAILED = "failed"  # the endpoint answered 5xx
    CALLER_LEFT = "caller_left"
    DIED = "died"  # the replica's connection broke


class Call(Protocol):
    """One request, as the engine sees it. Exactly one of the two is called after each `want` or `replay`."""

    @property
    def id(self) -> str: ...

    def granted(self, lease: Lease) -> None: ...

    def refused(self, error: TorporError) -> None: ...


class Calls(Protocol):
    """The engine, as the proxy sees it."""

    def resolve(self, path: bytes, host: bytes, port: int | None) -> Target | None:
        """The call's target, or None for the control plane; `port` is an endpoint's own. Raises EndpointNotFound."""
        ...

    def share(self, target: Target, head: RequestHead) -> Target:
        """The revision's own target, of a target with a split."""
        ...

    def want(self, call: Call, target: Target, queue_within: float | None) -> None:
        """Asks for a slot; exactly one of granted and refused follows, maybe before this returns."""
        ...

    def leave(self, call: Call) -> None:
        """The caller went while parked; neither granted nor refused follows."""
        ...

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """The replica has really finished with this lease: exactly once per grant, unless it was replayed."""
        ...

    def replay(self, call: Call, lease: Lease, target: Target) -> None:
        """Settles the lease as DIED, then wants again at the head of the queue."""
        ...


class Door(Protocol):
    """Who may come in, as the proxy sees it. A proxy without one asks nobody."""

    def admit(self, head: RequestHead, port: int | None) -> Target | None:
        """The call's target, as `Calls.resolve` gives it, once its token allows it. `port` is an endpoint's own.

        Raises Unauthorized, Forbidden, and EndpointNotFound for who may know that.
        """
        ...


class Trace(Protocol):
    """The router's span of one call, as the proxy tells it. What comes after `ended` changes nothing."""

    traceparent: bytes  # of the router's span, for the replica

    def answered(self, status: int, lease: Lease | None, router: float, timing: bytes) -> None:
        """The answer's head has come. `router`: seconds until it was forwarded; `timing`: the replica's phases."""
        ...

    def failed(self, status: int, code: str) -> None:
        """The router itself answers with an error."""
        ...

    def ended(self, why: str | None) -> None:
        """The exchange is over; `why`: it came to no regular end."""
        ...


class Traces(Protocol):
    """Whoever keeps the router's spans. A proxy without one keeps none, and passes a caller's traceparent on."""

    def begin(self, target: Target, method: bytes, call: bytes, parents: list[bytes], started: float) -> Trace:
        """The span of a call that came at `started` (the proxy's clock). `parents`: its traceparent lines."""
        ...
