"""The efforts: effects that take a task of their own, each performed by the launcher, its result told as an event."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Container
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from router.core import effects as ef
from router.core import events as ev
from router.shell.plan import Launching, Plan
from torpor.errors import TorporError

log = logging.getLogger("torpor.engine")

Effort = ef.Start | ef.Stop | ef.Keep | ef.Drop


class Starting:
    """A start under way: `planning` is cancelled by a stop, `over` is set when there is a process or will be none."""

    def __init__(self) -> None:
        self.planning = anyio.CancelScope()
        self.over = anyio.Event()


class Efforts:
    """`templates` are those that the schedule knows; `plan_of` makes the plan of a live revision, once a revision."""

    def __init__(
        self,
        launcher: Launching,
        plan_of: Callable[[str, int], Awaitable[Plan]],
        tell: Callable[[ev.Event], None],
        templates: Container[str],
    ) -> None:
        self.plan_of = plan_of
        self.plans: dict[tuple[str, int], Plan] = {}
        self.launcher = launcher
        self._tell = tell
        self._templates = templates
        self._work: deque[Effort] = deque()
        self._starting: dict[str, Starting] = {}

    def add(self, effort: Effort) -> None:
        """For `spawn`: an event may be told outside of any task, by a connection or a descriptor."""
        self._work.append(effort)

    def forget(self, endpoint: str) -> None:
        """Drops the plans of all its revisions."""
        for key in [k for k in self.plans if k[0] == endpoint]:
            del self.plans[key]

    def spawn(self, tasks: TaskGroup) -> None:
        """Begins what was added."""
        while self._work:
            match effect := self._work.popleft():
                case ef.Start():
                    starting = self._starting[effect.replica] = Starting()
                    tasks.start_soon(self._start, effect, starting)
                case ef.Stop():
                    tasks.start_soon(self._stop, effect)
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
            await self.launcher.start(effect.replica, plan, self._tell, effect.template)
        except Exception as error:  # the edge of a task: whatever hinders a start is the callers' answer
            if not isinstance(error, TorporError):
                log.exception("replica %s could not be started", effect.replica)
            reason = str(error).partition("\n")[0] or type(error).__name__
            self._tell(ev.Failed(effect.replica, reason))
            self._tell(ev.Exited(effect.replica, 1))
        finally:
            del self._starting[effect.replica]
            starting.over.set()

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
                await starting.over.wait()
            await self.launcher.stop(effect.replica, effect.within)
