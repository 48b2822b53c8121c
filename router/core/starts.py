"""Starts: when a replica is started or resumed, and what becomes of it: ready, failed, too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from router.core import events as ev
from router.core.effects import Note, Proved, Resume, Start
from router.core.lifecycle import Move
from router.core.line import Line, Replica
from router.core.refusals import gpus, no_card_free, start_failed, start_timeout
from router.core.scale import BUCKETS
from router.core.settings import Settings
from torpor.errors import StartFailed, StartTimeout
from torpor.wire import State

if TYPE_CHECKING:
    from router.core.schedule import Schedule


class Starts:
    """Decides over a schedule. `name` gives ids of replicas that are never given twice."""

    def __init__(self, schedule: Schedule, name: Callable[[str, int], str]) -> None:
        self._s = schedule
        self._name = name

    def if_short(self, line: Line, now: float) -> None:
        """Starts what the load is short of. One that is paused has its memory already, and no start that failed."""
        while line.revision is not None and not line.removed and not self._s.closing and line.short():
            paused = line.paused()
            if paused is not None:
                self.resume(line, paused, now)
            elif line.backing_off(now) or not self._s.room.admit(line, now):
                return
            else:
                self.launch(line, line.revision, line.settings, now)

    def launch(self, line: Line, revision: int, settings: Settings, now: float, trial: bool = False) -> None:
        """Starts a replica: of the template where there is one, but a trial, which is to learn what a start takes."""
        replica = Replica(self._name(line.name, revision), line.name, revision, settings, now, trial=trial, born_at=now)
        template = None if trial else line.usable_template()
        if template is not None:
            template.used_at = now
            replica.template = template.id
        line.replicas[replica.id] = self._s.replicas[replica.id] = replica
        if trial and not self._s.room.admit_trial(line, replica, now):
            return self._wait(line, replica, now)
        return self.begin(line, replica, now)

    def _wait(self, line: Line, replica: Replica, now: float) -> None:
        """A trial that the room has no cards for: it is there, so that there is no other, and nothing runs."""
        replica.move(Move.START, now)
        replica.waits = True
        self._s.due("start", replica.id, now + replica.settings.queue_within)
        self._s.emit(
            Note(line.name, "waits", f"replica {replica.id} waits for {gpus(replica.settings.gpu)}", replica.id)
        )

    def begin(self, line: Line, replica: Replica, now: float) -> None:
        """Starts one that has its place."""
        self._s.cards.take(line, replica)
        by = f" from the template {replica.template}" if replica.template else ""
        on = f" on {gpus(replica.settings.gpu)}" if replica.cards else ""
        if replica.waits:
            replica.waits = False
        else:
            replica.move(Move.START, now)
        self._begin(line, replica, f"starts{by}{on}", now)
        self._s.emit(Start(replica.id, line.name, replica.revision, replica.template, replica.cards))

    def resume(self, line: Line, replica: Replica, now: float) -> None:
        """A start of a replica that is there."""
        replica.resumed = True
        self._s.not_due("keep", replica.id)
        replica.move(Move.START, now)
        self._begin(line, replica, "is resumed", now)
        self._s.emit(Resume(replica.id))

    def _begin(self, line: Line, replica: Replica, how: str, now: float) -> None:
        replica.started_at = now
        self._s.due("start", replica.id, now + replica.settings.start_within)
        if replica.settings.max_replicas > 1:
            self._s.due("scale", line.name, now + replica.settings.scale_window / BUCKETS)
        self._s.emit(Note(line.name, "starting", f"replica {replica.id} {how}", replica.id))

    def ready(self, e: ev.Ready, now: float) -> None:
        replica = self._s.replicas[e.replica]
        line = self._s.lines[replica.endpoint]
        replica.move(Move.READY, now)
        if replica.state is State.STOPPING:
            return  # law 6: the stop is under way
        self._s.not_due("start", replica.id)
        if not replica.resumed:  # else its service has said already how much it takes
            replica.limit = line.limit = replica.settings.concurrency or e.limit
        replica.phases = e.phases
        replica.ready_at = replica.last_finish = now
        took = now - replica.started_at
        line.starts.append(took)
        ready = f"replica {replica.id} was ready after {took:.3f} s"
        if replica.trial:
            self._s.emit(Note(line.name, "tried", f"{ready}, on trial", replica.id, took, e.phases))
            self._s.emit(Proved(line.name, replica.revision, replica.id))
            return
        line.failures, line.error = 0, None
        line.cold_starts += 1
        self._s.emit(Note(line.name, "woke", ready, replica.id, took, e.phases))
        self._s.after_work(line, replica, now)

    def failed(self, e: ev.Failed, now: float) -> None:
        replica = self._s.replicas[e.replica]
        if replica.state is State.PAUSED:
            return self._s.freezer.failed(replica, e.reason, now)
        if replica.state is not State.STOPPING:
            self._fail(replica, start_failed(self._s.lines[replica.endpoint], e.reason, e.log), now)

    def late(self, e: ev.Late, now: float) -> None:
        replica = self._s.replicas.get(e.replica)
        if replica is not None and replica.waits:
            return self._waited_out(replica, now)
        if replica is not None and replica.state is State.STARTING:  # else it was ready, or over, in the last moment
            error = start_timeout(self._s.lines[replica.endpoint], now - replica.started_at, e.log)
            self._fail(replica, error, now)
        return None

    def _waited_out(self, replica: Replica, now: float) -> None:
        line = self._s.lines[replica.endpoint]
        self._s.disprove(line, replica, no_card_free(line.name, replica.settings.gpu, now - replica.since))
        replica.move(Move.STOP, now)
        self._s.stop(replica)

    def _fail(self, replica: Replica, error: StartFailed | StartTimeout, now: float) -> None:
        replica.move(Move.STOP, now)
        self._s.not_due("start", replica.id)
        self.ended(replica, error, now)
        self._s.stop(replica)

    def ended(self, replica: Replica, error: StartFailed | StartTimeout, now: float) -> None:
        """A start did not lead to a replica. The parked are refused unless another replica will serve them: law 5.

        1 of a trial the deploy is told, 2 of an older revision nobody, 3 what could not be resumed has run before: the
        revision is not at fault, and the parked wait for a start anew, 4 else starts are put off for a while.
        """
        line = self._s.lines[replica.endpoint]
        self._s.emit(Note(line.name, "start_failed", error.message, replica.id, now - replica.started_at))
        if replica.trial:  # 1
            return self._s.disprove(line, replica, error)
        if replica.revision != line.revision or line.removed:  # 2
            return None
        if replica.resumed:  # 3
            return self.if_short(line, now)
        kept = type(error)(error.message, detail=error.detail)  # 4
        line.start_failed(kept, now)
        error.retry_after = kept.retry_after
        if not any(line.current(State.STARTING, State.READY)):
            self._s.refuse_parked(line, error)
        return None
