"""On which rung an endpoint is: what of it is there now, since when, why, and what comes next."""

from __future__ import annotations

from router.api.pages.words import counted
from router.core.line import Line, Replica
from router.core.refusals import mib
from router.core.schedule import Schedule
from router.core.settings import Settings
from router.core.shelf import LOADED
from torpor.wire import Rung, RungView, State

NEEDED = "when its memory is needed"
COLD = "a call starts a replica from nothing"
KEPT = {
    "template": "a process with its service loaded is kept, to fork from",
    "fork": "its container is kept with its imports done, to fork in",
}


class Rungs:
    """Reads a schedule; `epoch` is the instant 0 of its clock, in seconds since the Unix epoch."""

    def __init__(self, schedule: Schedule, epoch: float) -> None:
        self._schedule = schedule
        self._epoch = epoch

    def of(self, name: str, settings: Settings, terminated: bool, now: float) -> RungView:
        """`now`: of the schedule's clock. 1 terminated, 2 awake or about to be, 3 frozen, 4 a template, 5 nothing."""
        line = self._schedule.lines.get(name)
        if terminated or line is None:  # 1
            back = f"`torpor start {name}` puts it back" if terminated else COLD
            return self._view(
                Rung.STOP, None, "it is terminated" if terminated else "it has not run yet", back, settings
            )
        awake = list(line.current(State.STARTING, State.READY, State.DRAINING))
        paused, template = line.paused(), line.usable_template()
        if awake:  # 2
            since = min(r.ready_at if r.state is not State.STARTING else r.started_at for r in awake)
            return self._view(
                Rung.WARM, since, why_warm(line, awake, now), self._after_warm(line, awake, now), settings
            )
        if paused is not None:  # 3
            idle = max(0.0, paused.since - paused.last_finish)
            takes = mib(paused.memory or line.memory)
            why = f"its replica was frozen, {idle:,.0f} s after its last call; it takes {takes}"
            ends = self._goes("it stops", paused.since + settings.keep_for, settings, now)
            return self._view(Rung.PAUSE, paused.since, why, ends, settings)
        if template is not None:  # 4
            since = max(template.since, line.ended_at or 0.0)
            why = f"{KEPT[settings.rung]}; it takes {mib(template.memory)}"
            used_at = max(template.used_at, line.last_call or 0.0)
            ends = self._goes("it goes", used_at + settings.keep_for, settings, now)
            return self._view(Rung(settings.rung), since, why, ends, settings)
        ahead = "a call forks from it once it is loaded" if line.template is not None else COLD  # 5
        return self._view(Rung.STOP, line.ended_at, why_nothing(line), ahead, settings)

    def _view(self, rung: Rung, since: float | None, why: str, then: str, settings: Settings) -> RungView:
        return RungView(
            name=str(rung),
            since=None if since is None else self._epoch + since,
            why=why,
            next=then,
            ladder=[str(each) for each in ladder(settings)],
        )

    def _goes(self, what: str, at: float, settings: Settings, now: float) -> str:
        """When what is kept goes."""
        limited = self._schedule.room.limit is not None
        if not settings.keep_for:
            return f"{what} {NEEDED}" if limited else "it stays until it is needed"
        return f"{what} in {max(0.0, at - now):,.0f} s" + (f", or {NEEDED}" if limited else "")

    def _after_warm(self, line: Line, awake: list[Replica], now: float) -> str:
        ready = [r for r in awake if r.state is not State.STARTING]
        if not ready:
            return "calls are answered when it is ready"
        if len(awake) <= line.settings.min_replicas:
            return f"it stays awake: min_replicas = {line.settings.min_replicas}"
        below = ladder(line.settings)[1] if line.no_template is None else Rung.STOP
        if any(r.busy for r in ready):
            return f"it falls to `{below}` {self._schedule.rest.patience(ready[0]):,g} s after its last call"
        left = max(r.last_finish + self._schedule.rest.patience(r) for r in ready) - now
        early = f", or {NEEDED}" if self._schedule.room.limit is not None else ""
        return f"it falls to `{below}` in {max(0.0, left):,.0f} s without a call{early}"


def ladder(settings: Settings) -> list[Rung]:
    """The rungs that an endpoint has, from warm to gone."""
    return list(dict.fromkeys((Rung.WARM, Rung(settings.rung), Rung.STOP)))


def why_warm(line: Line, awake: list[Replica], now: float) -> str:
    calls, tasks = sum(r.in_flight for r in awake), sum(r.tasks for r in awake)
    ready = [r for r in awake if r.state is not State.STARTING]
    if not ready:
        how = "is resumed" if awake[0].resumed else "starts"
        return f"a replica {how}; {counted(len(line.parked), 'call')} waiting for it"
    if calls or tasks:
        return f"it runs {counted(calls, 'call')} and {counted(tasks, 'background task')}"
    return f"it ran its last call {max(0.0, now - max(r.last_finish for r in ready)):,.0f} s ago"


def why_nothing(line: Line) -> str:
    """1 it could not start, 2 nothing is meant to be kept, 3 cannot be, 4 will be, 5 has been, 6 or was not yet."""
    settings = line.settings
    if line.error is not None:  # 1
        return "its last start failed: see its last error"
    if settings.rung == Rung.STOP:  # 2
        return f'sleep = "{settings.sleep}" keeps nothing of it'
    if settings.rung in LOADED and line.no_template is not None:  # 3
        return f"it can keep no {settings.rung}: {line.no_template}"
    if line.template is not None:  # 4
        return f"its {settings.rung} is being loaded"
    return line.bare or "nothing was kept of it since the router has started"  # 5, 6
