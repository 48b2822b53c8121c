"""What the owner of an endpoint asks for: a trial, a deploy, a removal, sleep, the end of the router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core import events as ev
from router.core.effects import Asleep, Note
from router.core.line import Line, Why
from router.core.refusals import no_cards, put_to_sleep, shutting_down, unknown
from router.core.scale import Window
from router.core.settings import Settings
from router.core.shelf import LOADED
from torpor.errors import Conflict
from torpor.wire import State

if TYPE_CHECKING:
    from router.core.schedule import Schedule


class Owner:
    """Decides the owner's events over a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._s = schedule

    def tried(self, e: ev.Tried, now: float) -> None:
        if self._s.closing:
            raise shutting_down()
        line = self._s.lines.get(e.endpoint)
        if line is not None and line.trial() is not None:
            raise Conflict(f"endpoint {e.endpoint!r} is being deployed\nwait until that deploy has ended")
        if e.settings.gpu > len(self._s.cards.all):
            raise no_cards(e.endpoint, e.settings.gpu, len(self._s.cards.all))
        if line is None or line.removed:
            line = self._fresh(e.endpoint, e.settings, line)
        self._s.starts.launch(line, e.revision, e.settings, now, trial=True)

    def abandoned(self, e: ev.Abandoned, now: float) -> None:
        line = self._s.lines.get(e.endpoint)
        trial = line.trial() if line else None
        if line and trial:
            self._s.retire(line, trial, Why.REMOVED, now)
            trial.trial = False  # the next deploy need not wait until it is gone

    def deployed(self, e: ev.Deployed, now: float) -> None:
        line = self._s.lines.get(e.endpoint)
        if line is None or line.removed:
            line = self._fresh(e.endpoint, e.settings, line)
        line.revision, line.settings = e.revision, e.settings
        line.failures, line.error, line.retry_at = 0, None, 0.0
        line.memory, line.gpu_memory, line.no_template = e.memory, 0, None
        line.window = Window(e.settings.scale_window)
        self._s.shelf.drop(line)
        line.bare = ""
        proved = False
        for replica in list(line.replicas.values()):
            if replica.revision != e.revision:
                self._s.retire(line, replica, Why.OUTDATED, now)
            elif replica.trial:
                replica.trial = False
                proved = True
                self._s.after_work(line, replica, now)
        self._s.starts.if_short(line, now)
        if proved or e.settings.sleep in LOADED:
            self._s.shelf.keep(line, now)

    def removed(self, e: ev.Removed, now: float) -> None:
        line = self._s.lines.get(e.endpoint)
        if line is None or line.revision is None:
            raise unknown(e.endpoint)
        line.removed = True
        self._s.refuse_parked(line, unknown(e.endpoint))
        self._s.shelf.drop(line, Why.REMOVED)
        for replica in list(line.replicas.values()):
            self._s.retire(line, replica, Why.REMOVED, now)
        self._await_end(line)
        self._s.drop_if_empty(line)

    def slept(self, e: ev.Slept, now: float) -> None:
        line = self._s.lines.get(e.endpoint)
        if line is None or line.revision is None or line.removed:
            raise unknown(e.endpoint)
        if line.trial() is not None:
            raise Conflict(f"endpoint {e.endpoint!r} is being deployed\nwait until that deploy has ended")
        running = sum(r.in_flight + r.tasks for r in line.current(State.READY, State.DRAINING))
        if (running or line.parked) and not e.force:
            raise Conflict(
                f"endpoint {e.endpoint!r} has {running} calls or tasks running and {len(line.parked)} waiting\n"
                "wait for them, or force it to sleep: what still runs after drain_within is cut off"
            )
        self._s.refuse_parked(line, put_to_sleep(e.endpoint))
        for replica in list(line.current(State.STARTING, State.READY, State.DRAINING)):
            if self._s.freezer.keep(line, replica, Why.SLEPT, now):
                continue
            self._s.emit(Note(line.name, "slept", f"replica {replica.id} was sent to sleep", replica.id))
            self._s.retire(line, replica, Why.SLEPT, now)  # not revoked: under steady calls it would never sleep
        self._s.shelf.keep(line, now)
        self._await_end(line)

    def shut_down(self, e: ev.ShutDown, now: float) -> None:
        """Law 9: stop admitting, refuse the queue, drain, stop."""
        self._s.closing = True
        for line in list(self._s.lines.values()):
            self._s.refuse_parked(line, shutting_down())
            self._s.shelf.drop(line, Why.SHUTDOWN)
            for replica in list(line.replicas.values()):
                self._s.retire(line, replica, Why.SHUTDOWN, now)

    def _await_end(self, line: Line) -> None:
        """Asleep follows when the replicas of now have ended, whatever starts meanwhile; what is paused stays."""
        line.leaving |= {r.id for r in line.replicas.values() if r.state not in (State.STOPPED, State.PAUSED)}
        if not line.leaving:
            self._s.emit(Asleep(line.name))

    def _fresh(self, name: str, settings: Settings, old: Line | None) -> Line:
        """A new line under the name; what still ends of a removed one's replicas stays counted."""
        line = Line(name, settings)
        if old is not None:
            line.replicas, line.leaving = old.replicas, old.leaving
        self._s.lines[name] = line
        return line
