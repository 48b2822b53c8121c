"""What the owner's requests wait with: a trial's verdict, a call without a request."""

from __future__ import annotations

import anyio

from router.proxy.calls import Lease
from torpor.errors import TorporError


class Trial:
    """A revision on trial: `over` is set when its replica is ready or has failed."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.replica: str | None = None
        self.error: TorporError | None = None


class WakeCall:
    """A call without a request: it waits for a slot and gives it back."""

    def __init__(self) -> None:
        self.id = "wake"
        self.over = anyio.Event()
        self.lease: Lease | None = None
        self.error: TorporError | None = None

    def granted(self, lease: Lease) -> None:
        self.lease = lease
        self.over.set()

    def refused(self, error: TorporError) -> None:
        self.error = error
        self.over.set()
