"""An engine without replicas of its own: `Calls` with gates, which remembers what it was asked and told."""

from __future__ import annotations

from router.core.catalog import Catalog
from router.proxy.calls import Call, Lease, Outcome, Target
from router.proxy.head import RequestHead
from router.shell.engine import meant
from torpor.errors import EndpointNotFound, TorporError


class FakeCalls:
    """Leases `address` to every call of `/endpoints/e/...`, at once or, between `hold` and `release`, later."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.cold = False
        self.parked = 0.0
        self.phases: dict[str, float] = {}
        self.known: bytes | None = None  # the path of a read that the control plane answers, when set
        self.catalog: Catalog | None = None  # whose addresses it resolves, when set
        self.refusal: TorporError | None = None  # what `want` answers, when set
        self.wanted: list[tuple[Target, float | None]] = []
        self.waiting: list[Call] = []
        self.left: list[Call] = []
        self.granted: list[Lease] = []
        self.settled: list[Outcome] = []
        self.replayed = 0
        self._open: list[Lease] = []
        self._holding = False

    @property
    def held(self) -> int:
        """Leases granted and not settled."""
        return len(self._open)

    def share(self, target: Target, head: RequestHead) -> Target:
        raise AssertionError("no target here has a split")

    def hold(self) -> None:
        self._holding = True

    def release(self) -> None:
        self._holding = False
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            self._grant(call)

    def resolve(self, path: bytes, host: bytes, port: int | None) -> Target | None:
        if self.known is not None:
            return Target("", self.known)
        if self.catalog is not None:
            address = self.catalog.resolve(path, host, port)
            return None if address is None else meant(address)
        if port is not None:
            return Target("e", path)
        if path.startswith(b"/endpoints/e/"):
            return Target("e", path[len(b"/endpoints/e") :])
        if path.startswith(b"/endpoints/"):
            name = path.split(b"/")[2].decode()
            raise EndpointNotFound(f"no endpoint is named {name!r}\nDeploy it, or look at `torpor ls`.")
        return None

    def want(self, call: Call, target: Target, queue_within: float | None) -> None:
        self.wanted.append((target, queue_within))
        if self.refusal is not None:
            call.refused(self.refusal)
        elif self._holding:
            self.waiting.append(call)
        else:
            self._grant(call)

    def leave(self, call: Call) -> None:
        self.waiting.remove(call)  # raises when it did not wait
        self.left.append(call)

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        # By identity, and raises when it was settled before.
        del self._open[[held is lease for held in self._open].index(True)]
        self.settled.append(outcome)

    def replay(self, call: Call, lease: Lease, target: Target) -> None:
        self.settle(lease, Outcome.DIED)
        self.replayed += 1
        self.want(call, target, None)

    def _grant(self, call: Call) -> None:
        lease = Lease("e-1", self.address, self.cold, self.parked, self.phases)
        self.granted.append(lease)
        self._open.append(lease)
        call.granted(lease)
