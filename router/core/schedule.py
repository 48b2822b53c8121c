"""The schedule: events in, effects out. It alone writes a replica's state and counts its calls.

`step(event, now)` decides in one synchronous step; `next_deadline()` says when it wants to be told that time has
passed. Calls and the ends of replicas are decided here; their starts in `starts.py`, the owner's wishes in `owner.py`,
memory in `room.py`, graphics cards in `cards.py`, templates in `shelf.py`, sleep and fewer replicas in `rest.py`, what
sleeps frozen in `freezer.py`. One endpoint's queue is in `line.py`, the states in `lifecycle.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from router.core import events as ev
from router.core.cards import Cards
from router.core.deadlines import Deadlines
from router.core.effects import Asleep, Disproved, Effect, Grant, Note, Overdue, Refuse, Stop
from router.core.freezer import Freezer
from router.core.lifecycle import Move
from router.core.line import Line, Parked, Replica, Why
from router.core.owner import Owner
from router.core.refusals import (
    ending,
    no_room,
    queue_full,
    shutting_down,
    start_failed,
    unknown,
    waited_out,
)
from router.core.rest import Rest
from router.core.room import TURNS, Room, Turns
from router.core.shelf import Shelf
from router.core.slots import Slots
from router.core.starts import Starts
from torpor.errors import TorporError
from torpor.wire import State

# What is due: ("queue", call), ("start" | "idle" | "drain", replica), ("keep", paused replica or template),
# ("scale" | "turn", endpoint), ("card", card).
Key = tuple[str, str]
NO_CARDS: Mapping[str, ev.Held] = {}


class Schedule:
    """All endpoints. `name` makes an id out of an endpoint and a revision and never gives the same twice.

    `memory` is the bytes that all endpoints may take together, None for any number; `turns` says who goes for whom.
    `cards` are the graphics cards that can be handed out, by UUID, with what they hold.
    """

    def __init__(
        self,
        name: Callable[[str, int], str],
        memory: int | None = None,
        turns: Turns = TURNS,
        cards: Mapping[str, ev.Held] = NO_CARDS,
    ) -> None:
        self.starts = Starts(self, name)
        self.room = Room(self, memory, turns)
        self.cards = Cards(self, cards)
        self.shelf = Shelf(self, name)
        self.rest = Rest(self)
        self.freezer = Freezer(self)
        self.lines: dict[str, Line] = {}
        self.replicas: dict[str, Replica] = {}
        self.parked_at: dict[str, str] = {}  # call -> endpoint
        self.closing = False
        self._deadlines: Deadlines[Key] = Deadlines()
        self.slots = Slots(self.lines, self.replicas, self._deadlines, self.room.hungry, self.rest.patience)
        self._out: list[Effect] = []
        owner = Owner(self)
        self._decide: dict[type, Callable[[Any, float], None]] = {
            ev.Wanted: self._wanted,
            ev.CallerLeft: self._caller_left,
            ev.Settled: self._settled,
            ev.Ready: self.starts.ready,
            ev.Failed: self.starts.failed,
            ev.Late: self.starts.late,
            ev.Busy: self._busy,
            ev.Exited: self._exited,
            ev.Kept: self.shelf.kept,
            ev.Unkept: self.shelf.unkept,
            ev.Measured: self.room.measured,
            ev.Tried: owner.tried,
            ev.Abandoned: owner.abandoned,
            ev.Deployed: owner.deployed,
            ev.Removed: owner.removed,
            ev.Slept: owner.slept,
            ev.ShutDown: owner.shut_down,
            ev.Tick: self._tick,
        }

    def step(self, event: ev.Event, now: float) -> list[Effect]:
        """Decides. Raises (IllegalMove, Conflict, KeyError for a replica unknown) before anything has changed."""
        out: list[Effect] = []
        self._out = out
        self._decide[type(event)](event, now)
        if self.room.hungry:
            self.room.feed(now)
        return out

    def emit(self, effect: Effect) -> None:
        self._out.append(effect)

    def due(self, kind: str, key: str, at: float) -> None:
        """The step of this deadline is a Tick at `at`, unless it is moved before."""
        self._deadlines.set((kind, key), at)

    def not_due(self, kind: str, key: str) -> None:
        self._deadlines.clear((kind, key))

    def next_deadline(self) -> float | None:
        return self._deadlines.next()

    # Calls

    def _wanted(self, e: ev.Wanted, now: float) -> None:
        """1 refuse at shutdown, 2 refuse the unknown, 3 reserve, 4 refuse in back-off, 5 refuse when full, 6 park."""
        if self.closing:  # 1
            return self._refuse(e.call, shutting_down())
        line = self.lines.get(e.endpoint)
        if line is None or line.revision is None or line.removed:  # 2
            return self._refuse(e.call, unknown(e.endpoint))
        if e.counted:
            line.calls += not e.again
            line.last_call = now
        replica = line.choose()
        if replica is not None:  # 3
            if replica.state is State.DRAINING:
                self._take_back(replica, now)
            self._grant(e.call, replica, False, 0.0)
            return self._grow(line, now) if line.settings.max_replicas > 1 else None
        error = line.backing_off(now)
        if error is not None and not any(line.current(State.STARTING, State.PAUSED)):  # 4
            return self._refuse(e.call, error)
        if len(line.parked) >= line.settings.max_queue and not e.again:  # 5
            return self._refuse(e.call, queue_full(line, now))
        within = (
            line.settings.queue_within if e.queue_within is None else min(e.queue_within, line.settings.queue_within)
        )
        line.parked[e.call] = Parked(e.call, now, now + within)  # 6
        if e.again:
            line.parked.move_to_end(e.call, last=False)
        self.parked_at[e.call] = line.name
        self._deadlines.set(("queue", e.call), now + within)
        self._grow(line, now)

    def _caller_left(self, e: ev.CallerLeft, now: float) -> None:
        """Takes the call out of its queue. A start that it caused goes on: law 4."""
        name = self.parked_at.get(e.call)
        if name is not None:
            self._unpark(self.lines[name], e.call)

    def _settled(self, e: ev.Settled, now: float) -> None:
        replica = self.replicas[e.replica]
        if replica.in_flight == 0:
            raise KeyError(f"{e.replica} has no call in flight: a lease was settled twice")
        replica.in_flight -= 1
        replica.last_finish = now
        line = self.lines[replica.endpoint]
        if replica.state is State.STOPPED:
            return self._forget(line, replica)
        if e.broken and replica.state is State.READY:
            self.drain(line, replica, Why.BROKEN, now)
        self.after_work(line, replica, now)

    def _busy(self, e: ev.Busy, now: float) -> None:
        replica = self.replicas[e.replica]
        replica.tasks = e.tasks
        if replica.state is State.STOPPED:
            return
        replica.last_finish = now
        line = self.lines[replica.endpoint]
        if replica.state is State.PAUSED and e.tasks:  # told while it was being frozen
            return self.starts.resume(line, replica, now)
        self.after_work(line, replica, now)

    # Replicas

    def _exited(self, e: ev.Exited, now: float) -> None:
        replica = self.replicas[e.replica]
        line = self.lines[replica.endpoint]
        how = e.why or ending(e.status)
        before = replica.state
        replica.move(Move.EXIT, now)
        replica.tasks = 0
        self.cards.ended(replica, now)
        if replica.revision == line.revision:
            line.ended_at = now
        for kind in ("start", "idle", "drain", "keep"):
            self._deadlines.clear((kind, replica.id))
        if before is State.STARTING:
            self.starts.ended(replica, start_failed(line, f"it {how}", e.log), now)
        elif before is State.STOPPING and not (replica.why is Why.BROKEN and e.status):
            self._note_life(replica, "ended", f"has ended ({replica.why or 'it could not start'})", now)
        else:
            self._note_life(replica, "died", how, now)
            line.lost(replica, f"its {'frozen' if before is State.PAUSED else 'last'} replica died: it {how}")
            if replica.trial:
                self.disprove(line, replica, start_failed(line, f"it {how} after its start", e.log))
        self._forget(line, replica)
        if line.name in self.lines:
            self.starts.if_short(line, now)
        was_leaving = replica.id in line.leaving
        line.leaving.discard(replica.id)
        if line.asleep() or (was_leaving and not line.leaving):
            self.emit(Asleep(line.name))

    def _grow(self, line: Line, now: float) -> None:
        """What the load is worth now is remembered for the window, and what is short of it is started."""
        if line.settings.max_replicas > 1:
            line.window.note(line.worth(), now)
        self.starts.if_short(line, now)

    def stop(self, replica: Replica) -> None:
        for kind in ("idle", "drain", "keep"):
            self._deadlines.clear((kind, replica.id))
        if replica.waits:  # nothing runs that could exit
            return self._never_ran(replica)
        self.emit(Stop(replica.id, replica.settings.stop_within))
        return None

    def _never_ran(self, replica: Replica) -> None:
        replica.waits = False
        replica.move(Move.EXIT, replica.since)
        line = self.lines[replica.endpoint]
        self._forget(line, replica)
        if line.asleep():
            self.emit(Asleep(line.name))

    def drain(self, line: Line, replica: Replica, why: Why, now: float) -> None:
        """READY -> DRAINING, or a further reason for one that drains; stops at once when nothing runs."""
        if replica.state is State.READY:
            replica.move(Move.DRAIN, now)
            self._deadlines.clear(("idle", replica.id))
            if why is not Why.ROOM:  # what makes room for others is never cut off
                self._deadlines.set(("drain", replica.id), now + replica.settings.drain_within)
        elif replica.state is State.DRAINING and replica.why is Why.ROOM and why is not Why.ROOM:
            self._deadlines.set(("drain", replica.id), now + replica.settings.drain_within)
        replica.why = why
        if why is not Why.IDLE:
            line.lost(replica, f"its last replica went: {why}")
        if replica.state is State.DRAINING and not replica.busy:
            replica.move(Move.STOP, now)
            self.stop(replica)

    def retire(self, line: Line, replica: Replica, why: Why, now: float) -> None:
        """Ends a replica in whatever state it is, gently where calls run."""
        if replica.state is State.STARTING:
            replica.why = why
            replica.move(Move.STOP, now)
            self._deadlines.clear(("start", replica.id))
            if replica.trial:
                self.disprove(line, replica, start_failed(line, f"it was stopped: {why}", ()))
            self.stop(replica)
        elif replica.state is State.PAUSED:
            self.freezer.drop(line, replica, why, now)
        elif replica.state in (State.READY, State.DRAINING):
            self.drain(line, replica, why, now)

    def _take_back(self, replica: Replica, now: float) -> None:
        replica.move(Move.REVOKE, now)
        replica.why = None
        self._deadlines.clear(("drain", replica.id))

    def after_work(self, line: Line, replica: Replica, now: float) -> None:
        """A call or a task of the replica has ended: the next parked call, rest, or the end of its draining."""
        if replica.state is State.DRAINING and replica.why is Why.IDLE and line.parked and replica.free:
            self._take_back(replica, now)
        if replica.state is State.READY:
            self._serve(line, replica, now)
            self._rest(replica, now)
        elif replica.state is State.DRAINING and not replica.busy:
            replica.move(Move.STOP, now)
            self.stop(replica)
            self.starts.if_short(line, now)

    def _rest(self, replica: Replica, now: float) -> None:
        if not replica.busy:
            self._deadlines.set(("idle", replica.id), now + self.rest.patience(replica))

    def _serve(self, line: Line, replica: Replica, now: float) -> None:
        while line.parked and replica.free and replica.revision == line.revision and not replica.trial:
            parked = next(iter(line.parked.values()))
            self._unpark(line, parked.call)
            # Cold: the replica became ready while this call waited.
            self._grant(parked.call, replica, parked.since <= replica.ready_at, now - parked.since)

    # Time

    def _tick(self, e: ev.Tick, now: float) -> None:
        for kind, key in self._deadlines.due(now):
            if kind == "queue":
                self._waited_out(key, now)
            elif kind == "start":
                self.emit(Overdue(key))
            elif kind == "scale":
                if (line := self.lines.get(key)) is not None and line.revision is not None:
                    self.rest.scale(line, now)
            elif kind == "keep":
                if (paused := self.replicas.get(key)) is not None:
                    self.freezer.unused(paused, now)
                else:
                    self.shelf.unused(key, now)
            elif kind == "card":
                self.cards.overdue(key)
            elif kind != "turn":  # a turn's end is seen to by `feed`, after the step
                replica = self.replicas[key]
                line = self.lines[replica.endpoint]
                if kind == "drain":
                    replica.move(Move.STOP, now)
                    self.stop(replica)
                    self.starts.if_short(line, now)
                elif replica.state is State.READY and not replica.busy and not replica.trial:
                    self.rest.idled(line, replica, now)

    def _waited_out(self, call: str, now: float) -> None:
        line = self.lines[self.parked_at[call]]
        waited = now - line.parked[call].since
        self._unpark(line, call)
        error = no_room(line, waited, now) if line.name in self.room.hungry else waited_out(line, waited, now)
        self._refuse(call, error)

    # Small steps

    def _note_life(self, replica: Replica, kind: str, what: str, now: float) -> None:
        life = now - replica.born_at
        text = f"replica {replica.id} {what}, {life:.1f} s after it was started"
        self.emit(Note(replica.endpoint, kind, text, replica.id, life))

    def _grant(self, call: str, replica: Replica, cold: bool, parked: float) -> None:
        replica.in_flight += 1  # law 1: chosen and reserved in this step
        self._deadlines.clear(("idle", replica.id))
        self.emit(Grant(call, replica.id, cold, parked))

    def _refuse(self, call: str, error: TorporError) -> None:
        self.emit(Refuse(call, error))

    def _unpark(self, line: Line, call: str) -> None:
        del line.parked[call]
        del self.parked_at[call]
        self._deadlines.clear(("queue", call))

    def refuse_parked(self, line: Line, error: TorporError) -> None:
        for call in list(line.parked):
            self._unpark(line, call)
            self._refuse(call, error)

    def disprove(self, line: Line, replica: Replica, error: TorporError) -> None:
        replica.trial = False
        self.emit(Disproved(line.name, replica.revision, error))

    def _forget(self, line: Line, replica: Replica) -> None:
        """Drops a stopped replica once its last lease is settled."""
        if replica.in_flight == 0:
            line.replicas.pop(replica.id, None)
            del self.replicas[replica.id]
            self.drop_if_empty(line)

    def drop_if_empty(self, line: Line) -> None:
        if not line.replicas and (line.removed or line.revision is None) and self.lines.get(line.name) is line:
            del self.lines[line.name]
