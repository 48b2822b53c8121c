"""An engine over a fake launcher, under trio's mock clock: hours pass in milliseconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint
from trio.testing import MockClock, wait_all_tasks_blocked

from router.core.catalog import Catalog
from router.core.effects import Note
from router.core.events import Held
from router.core.settings import Settings
from router.proxy.calls import Lease, Outcome, Target
from router.shell.engine import Engine
from router.shell.plan import Plan
from tests.shell.fakes.launcher import FakeLauncher
from torpor.errors import TorporError

PATIENCE = 1e6  # seconds of the mock clock until a scenario that hangs is a failure


class FakeCall:
    """A call that remembers its answer, and that fails when it is answered twice."""

    def __init__(self, stage: Stage, endpoint: str = "e") -> None:
        self.id = "the caller's own"  # not unique, as a request id may be
        self.lease: Lease | None = None
        self.error: TorporError | None = None
        self.then: Callable[[], None] = lambda: None  # what the proxy does in the moment of the grant
        self.stage = stage
        self.target = Target(endpoint, b"/")
        self._answered = anyio.Event()

    @property
    def waits(self) -> bool:
        return self.lease is None and self.error is None

    def granted(self, lease: Lease) -> None:
        assert self.waits, "answered twice"
        self.lease = lease
        self._answered.set()
        self.then()

    def refused(self, error: TorporError) -> None:
        assert self.waits, "answered twice"
        self.error = error
        self._answered.set()

    async def answer(self) -> Lease:
        """The lease. Raises the refusal."""
        await self._answered.wait()
        if self.error is not None:
            raise self.error
        assert self.lease is not None
        return self.lease

    def settle(self, outcome: Outcome = Outcome.DONE) -> None:
        assert self.lease is not None
        lease, self.lease = self.lease, None
        self._answered = anyio.Event()
        self.stage.engine.settle(lease, outcome)


class Stage:
    """One engine; its endpoints' services behave as `kind` is named: see FakeLauncher."""

    def __init__(self, cards: dict[str, Held] | None = None) -> None:
        self.launcher = FakeLauncher()
        self.catalog = Catalog()
        self.notes: list[Note] = []
        self.holders: list[FakeCall] = []  # calls that a scenario keeps running
        self.kind = "Good"
        self.planning: anyio.Event | None = None  # what the making of a plan waits for, when set
        self.unplanned: Exception | None = None  # what the making of a plan raises, when set
        serial = count(1)
        self.engine = Engine(
            self.catalog,
            self.launcher,
            lambda endpoint, revision: f"{endpoint}-{revision}-{next(serial)}",
            anyio.current_time,
            self.notes.append,
            self.plan,
            cards=cards,
        )

    async def plan(self, endpoint: str, revision: int) -> Plan:
        await checkpoint()
        if self.planning is not None:
            await self.planning.wait()
        if self.unplanned is not None:
            raise self.unplanned
        return plan(endpoint, revision, self.kind)

    def deployed(self, name: str = "e", revision: int = 1, **settings: object) -> None:
        self.engine.live(name, revision, Settings(**settings))  # type: ignore[arg-type]  # the dataclass's keywords

    def release(self) -> None:
        """Opens every gate."""
        if self.planning is not None:
            self.planning.set()
        self.launcher.release()

    def want(self, endpoint: str = "e", queue_within: float | None = None) -> FakeCall:
        call = FakeCall(self, endpoint)
        self.engine.want(call, call.target, queue_within)
        return call

    async def awake(self, endpoint: str = "e") -> str:
        """Wakes it with a call that ends at once; the replica's id."""
        call = self.want(endpoint)
        replica = (await call.answer()).replica
        call.settle()
        return replica

    def states(self, endpoint: str = "e") -> list[str]:
        line = self.engine.schedule.lines.get(endpoint)
        return [str(replica.state) for replica in line.replicas.values()] if line else []

    def nothing_waits_for_sleep(self) -> None:
        assert not any(self.engine._falling_asleep.values())

    def nothing_is_held(self) -> None:
        """No caller is remembered, no lease, no waiter, no trial, and what runs is what the schedule knows."""
        engine = self.engine
        assert (engine._waiting, engine._keys, engine._trials) == ({}, {}, {})
        self.nothing_waits_for_sleep()
        assert engine.schedule.parked_at == {}
        assert sum(replica.in_flight for replica in engine.schedule.replicas.values()) == 0
        assert set(self.launcher.alive) == {r.id for r in engine.schedule.replicas.values() if r.state != "stopped"}


def plan(endpoint: str, revision: int, kind: str = "Good") -> Plan:
    return Plan(endpoint, revision, Path("/src"), None, f"service:{kind}", Path("/usr/bin/python"))


async def idle() -> None:
    """Returns when everything that can go on without time passing has gone on."""
    await wait_all_tasks_blocked()


def play(scenario: Callable[[Stage], Awaitable[None]], cards: dict[str, Held] | None = None) -> None:
    """Runs a scenario beside a running engine, under a clock that jumps to the next deadline when all wait.

    `cards`: the machine's graphics cards, with what they hold.
    """
    options = {"clock": MockClock(autojump_threshold=0)}
    anyio.run(beside_an_engine, scenario, PATIENCE, cards, backend="trio", backend_options=options)


async def beside_an_engine(
    scenario: Callable[[Stage], Awaitable[None]], patience: float, cards: dict[str, Held] | None = None
) -> None:
    stage = Stage(cards)
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.engine.run)
        with anyio.fail_after(patience):
            await scenario(stage)
        tasks.cancel_scope.cancel()
