"""The efforts: effects that take a task of their own, each performed by the launcher, its result told as an event."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field, replace

import anyio
from anyio.abc import TaskGroup

from router.core import effects as ef
from router.core import events as ev
from router.shell.plan import Launching, Plan
from torpor.errors import TorporError

log = logging.getLogger("torpor.engine")

Effort = ef.Start | ef.Stop | ef.Pause | ef.Resume | ef.Keep | ef.Drop


class Starting:
    """A start under way: `planning` is cancelled by a stop, `planned` is set when the launcher has it or never will."""

    def __init__(self) -> None:
        self.planning = anyio.CancelScope()
        self.planned = anyio.Event()


@dataclass(slots=True)
class Turn:
    """A pause or a resume of a replica, which begins when the one `before` it is over."""

    before: Turn | None
    over: anyio.Event = field(default_factory=anyio.Event)


class Efforts:
    """`plan_of` makes the plan of a live revision, once a revision; `replicas` and `templates` are those that the
    schedule knows.
    """

    def __init__(
        self,
        launcher: Launching,
        plan_of: Callable[[str, int], Awaitable[Plan]],
        tell: Callable[[ev.Event], None],
        replicas: Container[str],
        templates: Container[str],
    ) -> None:
        self.plan_of = plan_of
        self.plans: dict[tuple[str, int], Plan] = {}
        self.launcher = launcher
        self._tell = tell
        self._replicas = replicas
        self._templates = templates
        self._work: deque[tuple[Effort, Turn | None]] = deque()
        self._starting: dict[str, Starting] = {}
        self._turns: dict[str, Turn] = {}  # replica -> its last pause or resume, while that is under way
        self._stopping: set[str] = set()

    def add(self, effort: Effort) -> None:
        """For `spawn`: an event may be told outside of any task, by a connection or a descriptor."""
        turn = None
        if isinstance(effort, ef.Pause | ef.Resume):
            turn = self._turns[effort.replica] = Turn(self._turns.get(effort.replica))
        elif isinstance(effort, ef.Stop):
            self._stopping.add(effort.replica)
        self._work.append((effort, turn))

    def forget(self, endpoint: str) -> None:
        """Drops the plans of all its revisions."""
        for key in [k for k in self.plans if k[0] == endpoint]:
            del self.plans[key]

    def spawn(self, tasks: TaskGroup) -> None:
        """Begins what was added."""
        while self._work:
            effect, turn = self._work.popleft()
            match effect:
                case ef.Start():
                    starting = self._starting[effect.replica] = Starting()
                    tasks.start_soon(self._start, effect, starting)
                case ef.Stop():
                    tasks.start_soon(self._stop, effect)
                case ef.Pause() | ef.Resume():
                    assert turn is not None
                    tasks.start_soon(self._turn, effect, turn)
                case ef.Keep():
                    tasks.start_soon(self._keep, effect)
                case ef.Drop():
                    tasks.start_soon(self._drop, effect)

    async def _start(self, effect: ef.Start, starting: Starting) -> None:
        try:
            with starting.planning:
                plan = await self._plan(effect.endpoint, effect.revision)
            if starting.planning.cancelled_caught:
                self._tell(ev.Exited(effect.replica, 0))
                return
            starting.planned.set()
            if effect.cards:
                plan = replace(plan, cards=effect.cards)
            await self.launcher.start(effect.replica, plan, self._tell, effect.template)
        except Exception as error:  # the edge of a task: whatever hinders a start is the callers' answer
            if not isinstance(error, TorporError):
                log.exception("replica %s could not be started", effect.replica)
            self.plans.pop((effect.endpoint, effect.revision), None)  # what it names may be there no more: an image
            self._tell(ev.Failed(effect.replica, reason_of(error), words_of(error)))
            self._tell(ev.Exited(effect.replica, 1))
        finally:
            del self._starting[effect.replica]
            starting.planned.set()

    async def turned(self, replica: str) -> None:
        """Returns when no pause or resume of the replica is under way."""
        while (turn := self._turns.get(replica)) is not None:
            await turn.over.wait()

    async def _turn(self, effect: ef.Pause | ef.Resume, turn: Turn) -> None:
        """In the order of the effects, and none of what is to be stopped, or has gone, meanwhile."""
        try:
            if turn.before is not None:
                await turn.before.over.wait()
            turn.before = None
            if effect.replica in self._replicas and effect.replica not in self._stopping:
                await self._freeze_or_thaw(effect)
        finally:
            if self._turns.get(effect.replica) is turn:
                del self._turns[effect.replica]
            turn.over.set()

    async def _freeze_or_thaw(self, effect: ef.Pause | ef.Resume) -> None:
        try:
            if isinstance(effect, ef.Pause):
                await self.launcher.pause(effect.replica)
            else:
                await self.launcher.resume(effect.replica, self._tell)
        except Exception as error:  # the edge of a task: it is stopped then, and what waits for it has another one
            what = "paused" if isinstance(effect, ef.Pause) else "resumed"
            if not isinstance(error, TorporError):
                log.exception("replica %s could not be %s", effect.replica, what)
            if effect.replica in self._replicas:  # else it has gone meanwhile
                self._tell(ev.Failed(effect.replica, reason_of(error)))

    async def _keep(self, effect: ef.Keep) -> None:
        try:
            plan = await self._plan(effect.endpoint, effect.revision)
            await self.launcher.keep(effect.template, replace(plan, learn=False, sessions=()), self._tell)
        except Exception as error:  # the edge of a task: an endpoint without a template sleeps deep
            log.warning("endpoint %s keeps no template: %s", effect.endpoint, str(error).partition("\n")[0])
            if effect.template in self._templates:
                self._tell(ev.Unkept(effect.template))

    async def _drop(self, effect: ef.Drop) -> None:
        if effect.template in self._templates:  # else it is gone already
            await self.launcher.drop(effect.template)

    async def _plan(self, endpoint: str, revision: int) -> Plan:
        plan = self.plans.get((endpoint, revision))
        if plan is None:
            plan = self.plans[endpoint, revision] = await self.plan_of(endpoint, revision)
        return plan

    async def _stop(self, effect: ef.Stop) -> None:
        with anyio.CancelScope(shield=True):  # law 8: a stop that has begun is seen through
            starting = self._starting.get(effect.replica)
            if starting is not None:  # law 6: it may not even have come to the launcher yet
                starting.planning.cancel()
                await starting.planned.wait()
            await self.turned(effect.replica)
            try:
                await self.launcher.stop(effect.replica, effect.within)
            finally:
                self._stopping.discard(effect.replica)


def reason_of(error: Exception) -> str:
    """In one line."""
    return str(error).partition("\n")[0] or type(error).__name__


def words_of(error: Exception) -> tuple[str, ...]:
    """The last lines of what could not start, where the launcher has them."""
    detail = error.detail if isinstance(error, TorporError) else {}
    return tuple(map(str, (detail or {}).get("log", ())))
