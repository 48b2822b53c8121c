"""When a replica goes to sleep: the last one after its time of idleness, others when lately fewer were needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.effects import Note
from router.core.line import Line, Replica, Why
from router.core.scale import BUCKETS, may_go
from torpor.wire import State

if TYPE_CHECKING:
    from router.core.schedule import Schedule


class Rest:
    """Decides over a schedule which of its ready replicas go."""

    def __init__(self, schedule: Schedule) -> None:
        self._s = schedule

    def patience(self, replica: Replica) -> float:
        """Seconds that a replica may be idle: the last of its endpoint has a time of its own."""
        settings = replica.settings
        if settings.idle_after_last is None or self._s.lines[replica.endpoint].alive() > 1:
            return settings.idle_after
        return settings.idle_after_last

    def idled(self, line: Line, replica: Replica, now: float) -> None:
        """1 the last one may have longer, 2 some are kept awake, 3 the others stay while lately needed, 4 it sleeps:
        the last one frozen, where it may.
        """
        again = replica.last_finish + self.patience(replica)
        others = line.alive() - 1
        if again > now:  # 1
            return self._s.due("idle", replica.id, again)
        if others < line.settings.min_replicas:  # 2
            return self._s.due("idle", replica.id, now + max(1.0, replica.settings.idle_after))
        if others > 0 and not self._surplus(line, now):  # 3
            return self._s.due("idle", replica.id, now + line.settings.scale_window / BUCKETS)
        idle = now - replica.last_finish  # 4
        if others == 0 and self._s.freezer.keep(line, replica, f"it was idle for {idle:.0f} s", now):
            return None
        self._s.emit(Note(line.name, "slept", f"replica {replica.id} was idle for {idle:.0f} s", replica.id, idle))
        self._s.drain(line, replica, Why.IDLE, now)
        if others == 0:
            self._s.shelf.keep(line, now)
        return None

    def _surplus(self, line: Line, now: float) -> bool:
        """Whether one replica may go now, which is then counted: more than the window's highest, and not too many."""
        window = line.settings.scale_window
        line.window.note(line.worth(), now)
        while line.went and line.went[0] <= now - window:
            line.went.popleft()
        there = line.alive()
        needed = max(1, line.settings.min_replicas, line.window.highest(now))
        if there <= needed or any(line.current(State.STARTING)) or not may_go(there, len(line.went)):
            return False
        line.went.append(now)
        return True

    def scale(self, line: Line, now: float) -> None:
        """Lets the least loaded replica go where more are there than needed; looks again while there are several."""
        ready = list(line.current(State.READY))
        if len(ready) > 1 and self._surplus(line, now):
            least = min(reversed(ready), key=lambda r: r.in_flight)
            self._s.emit(Note(line.name, "slept", f"replica {least.id} is one more than is needed", least.id))
            self._s.drain(line, least, Why.IDLE, now)
        if line.alive() > 1:
            self._s.due("scale", line.name, now + line.settings.scale_window / BUCKETS)
