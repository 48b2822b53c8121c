"""The common call in two plain steps, without event or effect: a ready replica's slot is reserved and given back.

Each step does all that `Wanted` or `Settled` would do, or changes nothing and leaves it to them.
"""

from __future__ import annotations

from collections.abc import Callable

from router.core.deadlines import Deadlines
from router.core.line import Line, Replica
from torpor.wire import State

_READY = State.READY  # an enum's attribute is slow to read, and every call asks for it


class Slots:
    """Part of the schedule, on whose endpoints, replicas and deadlines it works."""

    def __init__(
        self,
        lines: dict[str, Line],
        replicas: dict[str, Replica],
        deadlines: Deadlines[tuple[str, str]],
        hungry: dict[str, float],
        patience: Callable[[Replica], float],
    ) -> None:
        self._lines = lines
        self._replicas = replicas
        self._deadlines = deadlines
        self._hungry = hungry
        self._patience = patience
        self.nothing_before = deadlines.bound  # no deadline is earlier than this instant; the exact one costs more

    def reserve(self, endpoint: str, now: float) -> Replica | None:
        """Law 1: the replica that serves the call, its slot reserved in this step; None where `Wanted` has to decide.

        An endpoint that was removed, or a schedule that closes, has no ready replica. The idle deadline is left as it
        is: when it comes, a busy replica is let be.
        """
        line = self._lines.get(endpoint)
        replica = None if line is None else line.ready()
        if line is None or replica is None:
            return None
        replica.in_flight += 1
        if line.settings.max_replicas > 1:
            if line.short():  # the count follows the load
                replica.in_flight -= 1
                return None
            line.window.note(line.worth(), now)
        line.calls += 1
        line.last_call = now
        return replica

    def release(self, replica_id: str, now: float) -> bool:
        """An unbroken replica has finished with a call; False where `Settled` has to decide."""
        replica = self._replicas.get(replica_id)
        if replica is None or replica.state is not _READY or not replica.in_flight:
            return False
        if self._hungry or self._lines[replica.endpoint].parked:
            return False
        replica.in_flight -= 1
        replica.last_finish = now
        if not replica.in_flight and not replica.tasks:
            self._deadlines.set(("idle", replica.id), now + self._patience(replica))
        return True
