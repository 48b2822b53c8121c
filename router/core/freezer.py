"""The rung `pause`: a replica that is frozen where it is while its endpoint sleeps, and goes on when a call comes.

It costs no processor time and keeps its memory, so it goes when that is needed, as templates do, and when it was
unused for `keep_for`. An endpoint has one at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.effects import Asleep, Note, Pause
from router.core.lifecycle import Move
from router.core.line import Line, Replica, Why
from torpor.wire import State

if TYPE_CHECKING:
    from router.core.schedule import Schedule


class Freezer:
    """Decides over a schedule which replica is paused, and when that goes too. `starts.resume` takes it out."""

    def __init__(self, schedule: Schedule) -> None:
        self._s = schedule

    def keep(self, line: Line, replica: Replica, why: str, now: float) -> bool:
        """Pauses a replica that is to sleep, where its endpoint is set so and may have it; else it has to stop."""
        settings = line.settings
        if settings.rung != "pause" or line.removed or self._s.closing or line.paused() is not None:
            return False
        if replica.state is not State.READY or replica.busy or replica.trial or replica.revision != line.revision:
            return False
        if line.alive() <= settings.min_replicas:
            return False
        if not self._s.room.spare(0):
            line.bare = "no memory was left for its frozen replica"
            return False
        replica.move(Move.PAUSE, now)
        self._s.not_due("idle", replica.id)
        if settings.keep_for:
            self._s.due("keep", replica.id, now + settings.keep_for)
        line.bare = ""
        idle = now - replica.last_finish
        self._s.emit(Note(line.name, "paused", f"replica {replica.id} is paused: {why}", replica.id, idle))
        self._s.emit(Pause(replica.id))
        if line.asleep():
            self._s.emit(Asleep(line.name))
        return True

    def drop(self, line: Line, replica: Replica, why: Why, now: float) -> None:
        """Stops a paused replica."""
        replica.why = why
        replica.move(Move.STOP, now)
        line.lost(replica, f"its frozen replica went: {why}")
        self._s.stop(replica)

    def unused(self, replica: Replica, now: float) -> None:
        """`keep_for` is over."""
        kept = now - replica.since
        text = f"replica {replica.id} goes: it was paused, and not needed for {kept:.0f} s (keep_for)"
        self._s.emit(Note(replica.endpoint, "dropped", text, replica.id, kept))
        self.drop(self._s.lines[replica.endpoint], replica, Why.UNUSED, now)

    def failed(self, replica: Replica, reason: str, now: float) -> None:
        """The launcher could not pause it."""
        line = self._s.lines[replica.endpoint]
        text = f"replica {replica.id} goes: it could not be paused: {reason}"
        self._s.emit(Note(line.name, "lost", text, replica.id))
        self.drop(line, replica, Why.UNPAUSED, now)
        line.lost(replica, f"it could not be paused: {reason}")
