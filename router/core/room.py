"""Room: what runs is measured, a start that does not fit waits, and what is idle goes to sleep for it.

It is memory, and graphics cards (`cards.py`). A start that lacks nothing but cards lets those pass that want none.

A start waits in the order in which the starts were wanted. Room is made in this order:

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
from router.core.refusals import above_limit, no_cards, too_large
from torpor.wire import State

if TYPE_CHECKING:
    from router.core.schedule import Schedule

WAKE_LEAST = 0.01  # seconds; below it wakes are equally cheap
TRIAL = "trial:"  # before the id of one that waits: no endpoint's name has a colon


@dataclass(slots=True)
class Lack:
    """What a start still wants beside what is free and what comes back by itself."""

    size: int  # bytes
    cards: int = 0

    @property
    def met(self) -> bool:
        return self.size <= 0 and self.cards <= 0

    def less(self, size: int, cards: int) -> bool:
        """Takes what is to come back; False where that is nothing of what is wanted."""
        if self.size <= 0 and not (self.cards > 0 and cards):
            return False
        self.size -= size
        self.cards -= cards
        return True


@dataclass(frozen=True, slots=True)
class Turns:
    """How long a replica may stay while another endpoint waits for its memory."""

    loads: float = 2.0  # a turn, in loads
    least: float = 0.2  # seconds of a turn


TURNS = Turns()


class Room:
    """The machine's memory for endpoints: `limit` bytes, None for any number; and its cards."""

    def __init__(self, schedule: Schedule, limit: int | None, turns: Turns) -> None:
        self._s = schedule
        self._turns = turns
        self.limit = limit
        self.platform = 0
        self.hungry: dict[str, float] = {}  # endpoints whose start waits, and trials -> since when
        self.evictions = 0

    def used(self) -> int:
        """Bytes: measured where something was measured, else expected."""
        there = (r for r in self._s.replicas.values() if r.state is not State.STOPPED and not r.waits)
        replicas = sum(self._charge(r) for r in there)
        return self.platform + replicas + sum(t.memory for t in self._s.shelf.templates.values())

    def spare(self, size: int) -> bool:
        """Whether something that can be done without fits in beside what is wanted."""
        return self.limit is None or (not self.hungry and self.used() + size <= self.limit)

    def admit(self, line: Line, now: float) -> bool:
        """Whether a replica may start now. If not, it starts when there is room, or can never: its queue is refused."""
        if line.name in self.hungry:
            return False
        wanted, there = line.settings.gpu, len(self._s.cards.all)
        if wanted > there:
            self._s.refuse_parked(line, no_cards(line.name, wanted, there))
            return False
        if self.limit is not None and line.memory + self.platform > self.limit:
            self._s.refuse_parked(line, too_large(line, self.platform, self.limit))
            return False
        if not self._others(wanted) and self._lack(line, line.settings.gpu).met:
            return True
        self.hungry[line.name] = now
        return False

    def admit_trial(self, line: Line, replica: Replica, now: float) -> bool:
        """The same for a trial that wants cards, which is nobody's queue. Its memory is known only after it."""
        wanted = replica.settings.gpu
        if not wanted or (not self._others(wanted) and self._s.cards.lack(line, wanted) <= 0):
            return True
        self.hungry[TRIAL + replica.id] = now
        return False

    def feed(self, now: float) -> None:
        """Starts those that wait, oldest first, as far as there is room, and makes room for the first that lacks it."""
        while self._feed_one(now):
            pass

    def _feed_one(self, now: float) -> bool:
        """Whether one was started: then the others are looked at anew."""
        behind = False  # another start that waits for cards
        for key in list(self.hungry):
            line, trial = self._who(key)
            if line is None:
                del self.hungry[key]
                continue
            wanted = trial.settings.gpu if trial else line.settings.gpu
            if wanted and behind:
                continue
            lack = Lack(0, self._s.cards.lack(line, wanted)) if trial else self._lack(line, wanted)
            if lack.met:
                del self.hungry[key]
                if trial is not None:
                    self._s.starts.begin(line, trial, now)
                else:
                    assert line.revision is not None
                    self._s.starts.launch(line, line.revision, line.settings, now)
                self._s.starts.if_short(line, now)
                return True
            bytes_too = lack.size > 0
            self._make_room(Lack(lack.size - self._going(), lack.cards - self._cards_going()), line, key, now)
            if bytes_too:
                return False
            behind = True
        return False

    def _who(self, key: str) -> tuple[Line | None, Replica | None]:
        """The endpoint that waits, and its trial, if that waits; None where nobody does any more."""
        trial = self._s.replicas.get(key.removeprefix(TRIAL)) if key.startswith(TRIAL) else None
        line = self._s.lines.get(trial.endpoint if trial else key)
        if trial is not None:
            return (line, trial) if trial.waits else (None, None)
        if line is None or line.revision is None or line.removed or self._s.closing or not line.short():
            return None, None
        return line, None

    def _lack(self, line: Line, cards: int) -> Lack:
        size = 0 if self.limit is None else self.used() + line.memory - self.limit
        return Lack(size, self._s.cards.lack(line, cards))

    def _others(self, cards: int) -> bool:
        """Whether a start that waits goes before one that wants so many cards."""
        if not self._s.cards.all:
            return bool(self.hungry)
        waiting = [self._who(key) for key in self.hungry]
        return any(
            line is not None and (cards or not (trial or line).settings.gpu or self._lack(line, 0).size > 0)
            for line, trial in waiting
        )

    def measured(self, e: ev.Measured, now: float) -> None:
        self.platform = e.platform
        self._s.cards.measured(e.cards)
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
            lack = Lack(self.used() - self.limit - self._going())
            self._drop_kept(lack, None, now)
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
        leaving = (r for r in self._s.replicas.values() if leaves(r))
        templates = (t.memory for t in self._s.shelf.templates.values() if t.ending)
        return sum(self._charge(r) for r in leaving) + sum(templates)

    def _cards_going(self) -> int:
        """Cards that come back likewise, and those whose memory is awaited."""
        leaving = (r for r in self._s.replicas.values() if leaves(r))
        return self._s.cards.going() + sum(len(r.cards) for r in leaving)

    def _make_room(self, lack: Lack, wanted: Line, key: str, now: float) -> None:
        """1, 2 and 3; where that is not enough yet, it is tried again when the next one may go.

        Not at the cost of the endpoint itself, but for its trial: two revisions may have one card to run on.
        """
        others = None if key.startswith(TRIAL) else wanted
        self._drop_kept(lack, others, now)  # 1
        until = {replica.id: self._stays_until(replica, wanted, key) for replica in self._ready(others)}
        over = [replica for replica in self._ready(others) if until[replica.id] <= now]
        self._send_away(lack, [r for r in over if not r.busy], now)  # 2
        self._send_away(lack, [r for r in over if r.busy], now)  # 3
        later = [at for at in until.values() if at > now]
        if later and not lack.met:
            self._s.due("turn", key, min(later))

    def _stays_until(self, replica: Replica, wanted: Line, key: str) -> float:
        """The instant at which a ready replica may be sent away for the endpoint that waits."""
        wake = self._s.lines[replica.endpoint].wake_takes()
        if not replica.busy:
            return min(replica.last_finish + wake, replica.ready_at + self._turn(wake))
        return max(replica.ready_at, self.hungry[key]) + self._turn(max(wake, wanted.wake_takes()))

    def _turn(self, load: float) -> float:
        return max(self._turns.least, self._turns.loads * load)

    def _drop_kept(self, lack: Lack, wanted: Line | None, now: float) -> None:
        """1."""
        kept: list[tuple[float, Line, Template | Replica]] = []
        for line in self._s.lines.values():
            if line is wanted:
                continue
            if line.template is not None and line.template.kept:
                kept.append((line.template.used_at, line, line.template))
            if (paused := line.paused()) is not None:
                kept.append((paused.since, line, paused))
        for _, line, each in sorted(kept, key=lambda found: found[0]):
            if isinstance(each, Template):
                if lack.less(each.memory, 0):
                    self.evictions += 1
                    self._s.shelf.drop(line, Why.ROOM)
            elif lack.less(self._charge(each), len(each.cards)):
                self._evicted(each, "it was paused", each.since, now)
                self._s.freezer.drop(line, each, Why.ROOM, now)

    def _send_away(self, lack: Lack, replicas: list[Replica], now: float) -> None:
        """2 or 3."""
        for replica in sorted(replicas, key=lambda r: self._worth_keeping(r, now)):
            if lack.less(self._charge(replica), len(replica.cards)):
                self._evicted(replica, "its turn is over" if replica.busy else "it was idle", replica.ready_at, now)
                self._s.drain(self._s.lines[replica.endpoint], replica, Why.ROOM, now)

    def _evicted(self, replica: Replica, why: str, since: float, now: float) -> None:
        self.evictions += 1
        what = "memory or a GPU" if replica.cards else "memory"
        text = f"replica {replica.id} goes for lack of {what}: {why}"
        self._s.emit(Note(replica.endpoint, "evicted", text, replica.id, now - since))

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


def leaves(replica: Replica) -> bool:
    """It ends without anything more being done."""
    return replica.state is State.STOPPING or (replica.state is State.DRAINING and replica.why is Why.ROOM)
