"""Replicas without processes: a launcher with gates, which passes the real one's contract (test_engine_launcher.py)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from router.core.events import Busy, Event, Exited, Failed, Kept, Ready, Unkept
from router.shell.plan import Plan
from torpor.errors import InternalError, TorporError

NOWHERE = Path("/nonexistent/python")  # an interpreter that no launcher can run


@dataclass
class Fake:
    """One replica that exists."""

    id: str
    plan: Plan
    tell: Callable[[Event], None]
    pid: int
    ready: bool = False
    over: anyio.Event = field(default_factory=anyio.Event)


class FakeLauncher:
    """A replica behaves as its service is named: `Good` is ready at once, `Broken` fails, `Slow` never gets ready,
    `Stubborn` does not hear TERM, `Threaded` cannot be forked once it is loaded. `hold_start` keeps starts from leading
    to a process, `hold_ready` keeps `Good` from being ready, until `release`.
    """

    def __init__(self) -> None:
        self.alive: dict[str, Fake] = {}
        self.started: list[str] = []
        self.stopped: list[tuple[str, float]] = []
        self.prepared: list[Plan] = []
        self.refusal: TorporError | Exception | None = None  # what `start` raises, when set
        self.unprepared: TorporError | None = None  # what `prepare` raises, when set
        self.holding = 0  # starts and stops that wait at a gate
        self.forked: dict[str, str | None] = {}  # replica -> the template that it came from
        self.templates: dict[str, anyio.Event] = {}  # those that are loaded -> told to end
        self.unkept: TorporError | None = None  # what `keep` raises, when set
        self.frozen: set[str] = set()
        self.paused: list[str] = []
        self.resumed: list[str] = []
        self.unpaused: TorporError | Exception | None = None  # what `pause` raises, when set
        self.unresumed: TorporError | Exception | None = None  # what `resume` raises, when set
        self._turning: set[str] = set()  # a pause or a resume of these is under way
        self._dropped: set[str] = set()
        self._starting: dict[str, anyio.Event] = {}
        self._start_gate: anyio.Event | None = None
        self._keep_gate: anyio.Event | None = None
        self._stop_gate: anyio.Event | None = None
        self._prepare_gate: anyio.Event | None = None
        self._pause_gate: anyio.Event | None = None
        self._resume_gate: anyio.Event | None = None
        self._hold_ready = False

    # Gates

    def hold_start(self) -> None:
        self._start_gate = anyio.Event()

    def hold_keep(self) -> None:
        self._keep_gate = anyio.Event()

    def hold_ready(self) -> None:
        self._hold_ready = True

    def hold_stop(self) -> None:
        self._stop_gate = anyio.Event()

    def hold_prepare(self) -> None:
        self._prepare_gate = anyio.Event()

    def hold_pause(self) -> None:
        self._pause_gate = anyio.Event()

    def hold_resume(self) -> None:
        self._resume_gate = anyio.Event()

    def let_pause(self) -> None:
        """Opens the gate of pauses alone."""
        assert self._pause_gate is not None
        self._pause_gate.set()
        self._pause_gate = None

    def release(self) -> None:
        """Opens every gate; what waited for `hold_ready` is ready now."""
        gates = (self._start_gate, self._keep_gate, self._stop_gate, self._prepare_gate, self._pause_gate)
        for gate in (*gates, self._resume_gate):
            if gate is not None:
                gate.set()
        self._start_gate = self._keep_gate = self._stop_gate = self._prepare_gate = None
        self._pause_gate = self._resume_gate = None
        self._hold_ready = False
        for fake in list(self.alive.values()):
            if kind(fake.plan) == "Good" and not fake.ready:
                self.ready(fake.id)

    def ready(self, replica: str, limit: int | None = None) -> None:
        fake = self.alive[replica]
        fake.ready = True
        fake.tell(Ready(replica, limit, {"fork": 0.01, "load": 0.02}))

    def exit(self, replica: str, status: int) -> None:
        fake = self.alive.pop(replica)
        self.frozen.discard(replica)
        fake.over.set()
        fake.tell(Exited(replica, status, ("its last line",)))

    def kill(self, replica: str) -> None:
        self.exit(replica, -signal.SIGKILL)

    def busy(self, replica: str, tasks: int) -> None:
        self.alive[replica].tell(Busy(replica, tasks))

    # The launcher

    async def prepare(self, plan: Plan) -> None:
        await self._wait_at(self._prepare_gate)
        if self.unprepared is not None:
            raise self.unprepared
        self.prepared.append(plan)

    async def start(self, replica: str, plan: Plan, tell: Callable[[Event], None], template: str | None = None) -> None:
        self.started.append(replica)
        self.forked[replica] = template if template in self.templates else None
        under_way = self._starting[replica] = anyio.Event()
        try:
            await self._wait_at(self._start_gate)
            if self.refusal is not None:
                raise self.refusal
            if plan.python == NOWHERE:
                raise InternalError(f"{plan.python} cannot be run\nmake it")
            fake = self.alive[replica] = Fake(replica, plan, tell, 1000 + len(self.started))
        finally:
            del self._starting[replica]
            under_way.set()
        if kind(plan) == "Broken":
            tell(Failed(replica, "ZeroDivisionError: division by zero", ("    1 / 0",)))
            self.exit(replica, 1)
        elif kind(plan) == "Stubborn" or (kind(plan) == "Good" and not self._hold_ready):
            self.ready(fake.id)

    async def stop(self, replica: str, within: float) -> None:
        self.stopped.append((replica, within))
        assert replica not in self._turning, "a stop beside a pause or a resume"
        if (under_way := self._starting.get(replica)) is not None:
            await under_way.wait()
        await self._wait_at(self._stop_gate)
        fake = self.alive.get(replica)
        if fake is None:
            return
        self.frozen.discard(replica)  # it goes on, to hear TERM
        if kind(fake.plan) == "Stubborn":
            with anyio.move_on_after(within):
                await fake.over.wait()
        else:
            await anyio.lowlevel.checkpoint()
        if replica in self.alive:
            term = 0 if fake.ready else -signal.SIGTERM
            self.exit(replica, -signal.SIGKILL if kind(fake.plan) == "Stubborn" else term)

    async def pause(self, replica: str) -> None:
        self.paused.append(replica)
        await self._turn(replica, self._pause_gate, self.unpaused)
        assert replica not in self.frozen
        self.frozen.add(replica)

    async def resume(self, replica: str, tell: Callable[[Event], None]) -> None:
        self.resumed.append(replica)
        await self._turn(replica, self._resume_gate, self.unresumed)
        self.frozen.remove(replica)
        tell(Ready(replica, None, {"resume": 0.02}))

    async def _turn(self, replica: str, gate: anyio.Event | None, refusal: Exception | None) -> None:
        assert replica not in self._turning, "a pause and a resume at once"
        self._turning.add(replica)
        try:
            await self._wait_at(gate)
        finally:
            self._turning.remove(replica)
        if refusal is not None:
            raise refusal
        if replica not in self.alive:
            raise InternalError(f"replica {replica} is gone\nanother one serves its endpoint")

    def address(self, replica: str) -> str:
        return f"/run/{replica}.sock"

    def said(self, replica: str) -> Mapping[str, Any]:
        fake = self.alive.get(replica)
        if fake is None:
            return {}
        ready = {"modules": ["json"], "schema": {"name": kind(fake.plan)}, "facts": {}, "phases": {"fork": 0.01}}
        return {"pid": fake.pid, "pids": (fake.pid,), **(ready if fake.ready else {})}

    def last_words(self, replica: str) -> tuple[str, ...]:
        return ("loads for ever",) if replica in self.alive else ()

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        if self._keep_gate is not None:
            await self._keep_gate.wait()
        if self.unkept is not None:
            raise self.unkept
        if template in self._dropped or kind(plan) in ("Broken", "Threaded"):
            reason = None if template in self._dropped else "it runs 2 threads once it is loaded"
            self._dropped.discard(template)
            return tell(Unkept(template, reason))
        over = self.templates[template] = anyio.Event()
        tell(Kept(template, 13 << 20))
        await over.wait()
        del self.templates[template]
        return tell(Unkept(template))

    async def drop(self, template: str) -> None:
        over = self.templates.get(template)
        if over is None:
            self._dropped.add(template)
            return
        for fake in [f for f in self.alive.values() if self.forked[f.id] == template]:
            await fake.over.wait()
        over.set()

    async def _wait_at(self, gate: anyio.Event | None) -> None:
        await anyio.lowlevel.checkpoint()
        if gate is not None:
            self.holding += 1
            try:
                await gate.wait()
            finally:
                self.holding -= 1


def kind(plan: Plan) -> str:
    return plan.target.partition(":")[2]
