"""Memory: what runs is measured, a start that does not fit waits, and what is idle goes to sleep for it.

A start waits for memory in the order in which the starts were wanted. Room is made in this order:

    1 templates and frozen replicas, the one used longest ago first
    2 idle replicas, long idle and quick to wake first
    3 busy replicas whose turn is over: they take no new calls, end what they run, and go; none is ever cut off

A turn is two loads, but 0.2 s at least: models that do not fit together are served in batches, A A A B B,
with about a third of the time spent loading, and none waits much longer than a turn and a load for its first call. An
idle replica goes before its turn is over once it has been idle as long as its own wake takes: to have kept it for
the call that may come next costs then as much as the wake would (the break-even rule of the ski rental problem).

A replica that is measured above its own `memory_limit` has a leak, or is larger than its owner thought: it takes no new
calls, ends what it runs within `drain_within`, and the next calls have another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.core import events as ev
from router.core.effects import Note
from router.core.line import Line, Replica, Template, Why
from router.core.refusals import above_limit, too_large
from torpor.wire import State

if TYPE_CHECKING:
    from router.core.schedule import Schedule

WAKE_LEAST = 0.01  # seconds; below it wakes are equally cheap


@dataclass(frozen=True, slots=True)
class Turns:
    """How long a replica may stay while another endpoint waits for its memory."""

    loads: float = 2.0  # a turn, in loads
    least: float = 0.2  # seconds of a turn


TURNS = Turns()


class Room:
    """The machine's memory for endpoints: `limit` bytes, None for any number."""

    def __init__(self, schedule: Schedule, limit: int | None, turns: Turns) -> None:
        self._s = schedule
        self._turns = turns
        self.limit = limit
        self.platform = 0
        self.hungry: dict[str, float] = {}  # endpoints whose start waits for memory -> since when
        self.evictions = 0

    def used(self) -> int:
        """Bytes: measured where something was measured, else expected."""
        replicas = sum(self._charge(r) for r in self._s.replicas.values() if r.state is not State.STOPPED)
        return self.platform + replicas + sum(t.memory for t in self._s.shelf.templates.values())

    def spare(self, size: int) -> bool:
        """Whether something that can be done without fits in beside what is wanted."""
        return self.limit is None or (not self.hungry and self.used() + size <= self.limit)

    def admit(self, line: Line, now: float) -> bool:
        """Whether a replica may start now. If not, it starts when there is room, or can never: its queue is refused."""
        if self.limit is None:
            return True
        if line.name in self.hungry:
            return False
        if line.memory + self.platform > self.limit:
            self._s.refuse_parked(line, too_large(line, self.platform, self.limit))
            return False
        if not self.hungry and self.used() + line.memory <= self.limit:
            return True
        self.hungry[line.name] = now
        return False

    def feed(self, now: float) -> None:
        """Starts those that wait, oldest first, as far as there is room, and makes room for the first that lacks it."""
        while self.hungry:
            assert self.limit is not None
            name = next(iter(self.hungry))
            line = self._s.lines.get(name)
            if line is None or line.revision is None or line.removed or self._s.closing or not line.short():
                del self.hungry[name]
                continue
            lack = self.used() + line.memory - self.limit
            if lack <= 0:
                del self.hungry[name]
                self._s.starts.launch(line, line.revision, line.settings, now)
                self._s.starts.if_short(line, now)
                continue
            self._make_room(lack - self._going(), line, now)
            return

    def measured(self, e: ev.Measured, now: float) -> None:
        self.platform = e.platform
        for replica in list(self._s.replicas.values()):
            if (size := e.by_id.get(replica.id)) is not None:
                replica.memory = size
                line = self._s.lines[replica.endpoint]
                limit = replica.settings.memory_limit
                if replica.revision == line.revision:  # the next one is not taken to leak from its start on
                    line.memory = max(line.memory, min(size, limit or size))
                if 0 < limit < size:
                    self._replace(line, replica, now)
        for template in self._s.shelf.templates.values():
            template.memory = e.by_id.get(template.id, template.memory)
        if self.limit is not None and not self.hungry:
            lack = self._drop_kept(self.used() - self.limit - self._going(), None, now)
            self._send_away(lack, [r for r in self._ready(None) if not r.busy], now)

    def _replace(self, line: Line, replica: Replica, now: float) -> None:
        """1 one that starts has failed, 2 a trial that is ready is judged by its deploy, 3 what serves is drained."""
        why = above_limit(replica.memory, replica.settings.memory_limit)
        if replica.state is State.STARTING:  # 1
            return self._s.starts.failed(ev.Failed(replica.id, why), now)
        serves = replica.state is State.READY or (replica.state is State.DRAINING and replica.why is Why.IDLE)
        if replica.trial or not serves:  # 2
            return None
        self._s.emit(Note(line.name, "too_large", f"replica {replica.id} is replaced: {why}", replica.id))  # 3
        self._s.drain(line, replica, Why.TOO_LARGE, now)
        return self._s.starts.if_short(line, now)

    def _charge(self, replica: Replica) -> int:
        line = self._s.lines.get(replica.endpoint)
        return replica.memory or (line.memory if line else 0)

    def _going(self) -> int:
        """Bytes that come back without anything more being done."""
        replicas = self._s.replicas.values()
        leaving = (
            r for r in replicas if r.state is State.STOPPING or (r.state is State.DRAINING and r.why is Why.ROOM)
        )
        templates = (t.memory for t in self._s.shelf.templates.values() if t.ending)
        return sum(self._charge(r) for r in leaving) + sum(templates)

    def _make_room(self, lack: int, wanted: Line, now: float) -> None:
        """1, 2 and 3; where that is not enough yet, it is tried again when the next one may go."""
        lack = self._drop_kept(lack, wanted, now)  # 1
        until = {replica.id: self._stays_until(replica, wanted) for replica in self._ready(wanted)}
        over = [replica for replica in self._ready(wanted) if until[replica.id] <= now]
        lack = self._send_away(lack, [r for r in over if not r.busy], now)  # 2
        lack = self._send_away(lack, [r for r in over if r.busy], now)  # 3
        later = [at for at in until.values() if at > now]
        if lack > 0 and later:
            self._s.due("turn", wanted.name, min(later))

    def _stays_until(self, replica: Replica, wanted: Line) -> float:
        """The instant at which a ready replica may be sent away for the endpoint that waits."""
        wake = self._s.lines[replica.endpoint].wake_takes()
        if not replica.busy:
            return min(replica.last_finish + wake, replica.ready_at + self._turn(wake))
        return max(replica.ready_at, self.hungry[wanted.name]) + self._turn(max(wake, wanted.wake_takes()))

    def _turn(self, load: float) -> float:
        return max(self._turns.least, self._turns.loads * load)

    def _drop_kept(self, lack: int, wanted: Line | None, now: float) -> int:
        """1; the bytes still lacking."""
        kept: list[tuple[float, Line, Template | Replica]] = []
        for line in self._s.lines.values():
            if line is wanted:
                continue
            if line.template is not None and line.template.kept:
                kept.append((line.template.used_at, line, line.template))
            if (paused := line.paused()) is not None:
                kept.append((paused.since, line, paused))
        for _, line, each in sorted(kept, key=lambda found: found[0]):
            if lack <= 0:
                break
            self.evictions += 1
            if isinstance(each, Template):
                lack -= each.memory
                self._s.shelf.drop(line, Why.ROOM)
                continue
            lack -= self._charge(each)
            text = f"replica {each.id} goes for lack of memory: it was paused"
            self._s.emit(Note(line.name, "evicted", text, each.id, now - each.since))
            self._s.freezer.drop(line, each, Why.ROOM, now)
        return lack

    def _send_away(self, lack: int, replicas: list[Replica], now: float) -> int:
        """2 or 3; the bytes still lacking."""
        for replica in sorted(replicas, key=lambda r: self._worth_keeping(r, now)):
            if lack <= 0:
                break
            lack -= self._charge(replica)
            self.evictions += 1
            why = "its turn is over" if replica.busy else "it was idle"
            text = f"replica {replica.id} goes for lack of memory: {why}"
            self._s.emit(Note(replica.endpoint, "evicted", text, replica.id, now - replica.ready_at))
            self._s.drain(self._s.lines[replica.endpoint], replica, Why.ROOM, now)
        return lack

    def _ready(self, wanted: Line | None) -> list[Replica]:
        """Those that could be sent away: ready ones of other endpoints."""
        return [
            r
            for r in self._s.replicas.values()
            if r.state is State.READY and not r.trial and (wanted is None or r.endpoint != wanted.name)
        ]

    def _worth_keeping(self, replica: Replica, now: float) -> float:
        """Small for what was used long ago and wakes quickly."""
        wake = max(WAKE_LEAST, self._s.lines[replica.endpoint].wake_takes())
        return wake / max(1e-3, now - replica.last_finish)
