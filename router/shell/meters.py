"""What is counted of replicas' lives: starts, their phases, failures, deaths, evictions, by endpoint."""

from __future__ import annotations

from typing import Final

from router.core.effects import Note
from router.proxy.tally import ANSWER, Histogram

PHASES_MAX: Final = 16  # names of phases that are told apart: a replica may report what it likes
OTHER: Final = "other"


class Lives:
    """One endpoint's replicas since the router's start or, if that was later, the endpoint's."""

    __slots__ = ("cold", "died", "evicted", "failed", "starts")

    def __init__(self) -> None:
        self.starts = 0
        self.cold = Histogram(ANSWER)  # seconds from the start of a replica until it was ready, trials aside
        self.failed = 0
        self.died = 0
        self.evicted = 0


class Meters:
    """Fed with every note of the schedule."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Lives] = {}
        self.phases: dict[str, Histogram] = {}  # seconds of cold starts, by phase

    def forget(self, endpoint: str) -> None:
        """The endpoint was removed; one of the same name counts anew."""
        self.endpoints.pop(endpoint, None)

    def noted(self, note: Note) -> None:
        lives = self.endpoints.get(note.endpoint)
        if lives is None:
            lives = self.endpoints[note.endpoint] = Lives()
        match note.kind:
            case "starting":
                lives.starts += 1
            case "woke":
                lives.cold.add(note.seconds or 0.0)
                for phase, seconds in (note.phases or {}).items():
                    self._phase(phase).add(seconds)
            case "start_failed":
                lives.failed += 1
            case "died":
                lives.died += 1
            case "evicted":
                lives.evicted += 1

    def _phase(self, name: str) -> Histogram:
        if name not in self.phases and len(self.phases) >= PHASES_MAX:
            name = OTHER
        return self.phases.setdefault(name, Histogram(ANSWER))
