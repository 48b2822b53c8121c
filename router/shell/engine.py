"""The engine: tells the schedule what happens and performs what it decides. The proxy's `Calls` are answered here.

Everything but starting and stopping is synchronous: a call that finds a free slot is granted before `want` returns.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from anyio.abc import TaskStatus

from router.core import effects as ef
from router.core import events as ev
from router.core.catalog import Address, Catalog
from router.core.rates import Rates
from router.core.schedule import Schedule
from router.core.settings import Settings
from router.core.split import Split, endpoint_of, header_value, query_value
from router.proxy.calls import Call, Lease, Outcome, Target
from router.proxy.head import RequestHead
from router.shell.efforts import Effort, Efforts
from router.shell.plan import Launching, Plan
from router.shell.waits import Trial, WakeCall
from torpor.wire import KNOWN

log = logging.getLogger("torpor.engine")

_DIED = Outcome.DIED  # an enum's attribute is slow to read, and every call asks for it
_TARGETS_MAX = 2048
_TARGET_BYTES = 256  # the longest path and host that are remembered


class Engine:
    """`clock` gives seconds that never go back; `note` takes what belongs in an endpoint's history.

    `plan` makes the plan of a live revision; it is asked once a revision. `memory` is in bytes, None for no limit.
    `today` gives seconds since the epoch, for the calls of a day. `cards`: the graphics cards that can be handed out,
    by UUID, with what they hold.
    """

    def __init__(
        self,
        catalog: Catalog,
        launcher: Launching,
        name: Callable[[str, int], str],
        clock: Callable[[], float],
        note: Callable[[ef.Note], None],
        plan: Callable[[str, int], Awaitable[Plan]],
        memory: int | None = None,
        today: Callable[[], float] = time.time,
        cards: Mapping[str, ev.Held] | None = None,
    ) -> None:
        self.catalog = catalog
        self.launcher = launcher
        self.gone: Callable[[str], None] = lambda address: None  # told the address of each replica that has exited
        self.schedule = Schedule(name, memory, cards=cards or {})
        self.rates = Rates()
        self._meters = self.rates.lines
        self._today = today
        self._nothing_before = self.schedule.slots.nothing_before
        self._clock = clock
        known = self.schedule.replicas, self.schedule.shelf.templates
        self.efforts = Efforts(launcher, plan, self.tell, *known)
        self._waiting: dict[str, Call] = {}
        self._keys: dict[int, str] = {}
        self._serial = 0
        self._targets: dict[tuple[bytes, bytes, int | None], Target] = {}
        self._targets_of = -1  # the catalogue's state in which they were found
        self._warm: dict[str, Lease] = {}
        self._inbox: deque[ev.Event] = deque()
        self._stepping = False
        self._nudged = anyio.Event()
        self._wakes_at = math.inf
        self._trials: dict[str, Trial] = {}
        self._falling_asleep: dict[str, list[anyio.Event]] = {}
        self._perform: dict[type, Callable[[Any], None]] = {
            ef.Start: self._hand_over,
            ef.Stop: self._hand_over,
            ef.Pause: self._hand_over,
            ef.Resume: self._hand_over,
            ef.Keep: self._hand_over,
            ef.Drop: self._hand_over,
            ef.Overdue: self._overdue,
            ef.Grant: self._grant,
            ef.Refuse: self._refuse,
            ef.Proved: self._proved,
            ef.Disproved: self._disproved,
            ef.Asleep: self._asleep,
            ef.Note: note,
        }

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Performs starts and stops and watches the deadlines until it is cancelled; then nothing may run any more."""
        async with anyio.create_task_group() as tasks:
            task_status.started()
            while True:
                self._nudged = anyio.Event()
                self.efforts.spawn(tasks)
                at = self.schedule.next_deadline()
                self._wakes_at = math.inf if at is None else at
                with anyio.move_on_after(max(0.0, self._wakes_at - self._clock())):
                    await self._nudged.wait()
                self.tell(ev.Tick())

    def tell(self, event: ev.Event) -> None:
        """Steps the schedule and performs its effects. Raises what the step of this very event raises.

        An effect may tell again (a call that is granted may settle at once): that event waits for its turn.
        """
        self._inbox.append(event)
        if self._stepping:
            return
        fault = self._work_off(event)
        if fault is not None:
            raise fault

    def _work_off(self, event: ev.Event | None = None) -> Exception | None:
        """Steps through what was told; what the step of `event` raised."""
        self._stepping = True
        fault: Exception | None = None
        try:
            while self._inbox:
                told = self._inbox.popleft()
                try:
                    decided = self.schedule.step(told, self._clock())
                except Exception as error:  # the edge of a step: one bad event must not stop the others
                    if told is not event:
                        log.exception("an event was refused: %r", told)
                    else:
                        fault = error
                    continue
                for effect in decided:
                    self._do(effect)
                if isinstance(told, ev.Exited):
                    self.gone(self.launcher.address(told.replica))
        finally:
            self._stepping = False
        self._watch()
        return fault

    def _watch(self) -> None:
        """Has `run` wake earlier if something is due earlier."""
        if self._nothing_before() < self._wakes_at:
            at = self.schedule.next_deadline()
            if at is not None and at < self._wakes_at:
                self._wakes_at = at
                self._nudged.set()

    def _do(self, effect: ef.Effect) -> None:
        try:
            self._perform[type(effect)](effect)
        except Exception:  # the edge of an effect: what goes wrong at one call must not reach the others
            log.exception("an effect failed: %r", effect)

    # Calls, as the proxy sees them

    def resolve(self, path: bytes, host: bytes, port: int | None) -> Target | None:
        asked = (path, host, port)
        target = self._targets.get(asked)
        if target is None or self._targets_of != self.catalog.changes:
            address = self.catalog.resolve(path, host, port)
            target = None if address is None else meant(address)
            self._remember(asked, target)
        return target

    def _remember(self, asked: tuple[bytes, bytes, int | None], target: Target | None) -> None:
        """Callers ask for the same again and again; what was found holds until the catalogue changes."""
        if self._targets_of != self.catalog.changes or len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
            self._targets_of = self.catalog.changes
        if target is not None and len(asked[0]) + len(asked[1]) <= _TARGET_BYTES:
            self._targets[asked] = target

    def share(self, target: Target, head: RequestHead) -> Target:
        split: Split = target.split
        value = None
        if split.kind == "header":
            value = header_value(split.by, head.passed)
        elif split.kind == "query":
            value = query_value(split.by, head.path)
        line = split.choose(value, random.random())
        return Target(line or target.endpoint, target.path, split)

    def want(self, call: Call, target: Target, queue_within: float | None) -> None:
        meter = self._meters.get(target.endpoint)
        if meter is not None and (error := meter.admit(self._clock(), self._today())) is not None:
            call.refused(error)
            return
        replica = None if self._stepping else self.schedule.slots.reserve(target.endpoint, self._clock())
        if replica is None:
            self.tell(ev.Wanted(target.endpoint, self._expect(call), queue_within))
            return
        self._stepping = True  # what is told meanwhile waits for its turn, as within any step
        try:
            call.granted(self._warm.get(replica.id) or self._warm_lease(replica.id))
        finally:
            self._stepping = False
            if self._inbox:
                self._work_off()

    def copy(self, call: Call, line: str) -> None:
        """Wants a slot of a shadow, for a copy of a call: that was one already, of those that the endpoint may have."""
        self.tell(ev.Wanted(line, self._expect(call)))

    def _warm_lease(self, replica: str) -> Lease:
        """All calls that find the replica ready have the same one."""
        self._warm = {known: lease for known, lease in self._warm.items() if known in self.schedule.replicas}
        lease = self._warm[replica] = Lease(replica, self.launcher.address(replica), False, 0.0, {})
        return lease

    def leave(self, call: Call) -> None:
        key = self._keys.pop(id(call), None)
        if key is not None:  # else its grant or refusal is on the way already
            del self._waiting[key]
            self.tell(ev.CallerLeft("", key))

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        broken = outcome is _DIED
        if broken or self._stepping or not self.schedule.slots.release(lease.replica, self._clock()):
            self.tell(ev.Settled(lease.replica, broken))
        else:
            self._watch()

    def replay(self, call: Call, lease: Lease, target: Target) -> None:
        self.tell(ev.Settled(lease.replica, True))
        endpoint = target.endpoint
        if target.split is not None and endpoint not in self.catalog.beside:
            endpoint = endpoint_of(endpoint)  # the version that it was given to has ended
        self.tell(ev.Wanted(endpoint, self._expect(call), None, True))

    # The owner's requests

    async def prove(self, plan: Plan, settings: Settings) -> str:
        """Starts one replica of a revision that is not live yet; its id. Raises the reason why it cannot start.

        Cancelled, it stops the replica again: nobody waits for it any more.
        """
        trial = Trial()
        self.efforts.plans[plan.endpoint, plan.revision] = plan
        self.tell(ev.Tried(plan.endpoint, plan.revision, settings))
        self._trials[plan.endpoint] = trial
        if trial.error is None and trial.replica is None:
            try:
                await trial.over.wait()
            except BaseException:
                self.abandon(plan.endpoint)
                raise
        if trial.error is not None:
            self._trials.pop(plan.endpoint, None)
            raise trial.error
        return trial.replica or ""

    def abandon(self, endpoint: str) -> None:
        """Stops the replica on trial: its revision will not become live."""
        self._trials.pop(endpoint, None)
        self.tell(ev.Abandoned(endpoint))

    def live(self, endpoint: str, revision: int, settings: Settings, memory: int = 0) -> None:
        """Makes a revision the live one; what is parked and what comes goes to it from now on.

        `memory`: bytes that a replica of it takes, 0 when unknown.
        """
        self.efforts.forget(endpoint)  # the trial's plan too: it was one that learns
        self._trials.pop(endpoint, None)
        self.rates.live(endpoint, settings, self._clock())
        self.tell(ev.Deployed(endpoint, revision, settings, memory))

    async def wake(self, endpoint: str) -> None:
        """Returns when a replica is ready. Raises what a call would be refused with."""
        call = WakeCall()
        self.tell(ev.Wanted(endpoint, self._expect(call), counted=False))
        try:
            await call.over.wait()
        except BaseException:
            self.leave(call)
            raise
        finally:
            if call.lease is not None:
                self.settle(call.lease, Outcome.DONE)
        if call.error is not None:
            raise call.error

    async def sleep(self, endpoint: str, force: bool = False) -> None:
        """Returns when no replica of the endpoint runs. Raises Conflict while calls run or wait, unless forced."""
        await self._when_asleep(endpoint, ev.Slept(endpoint, force))
        if (line := self.schedule.lines.get(endpoint)) is not None and (paused := line.paused()) is not None:
            await self.efforts.turned(paused.id)

    async def remove(self, endpoint: str, heir: str | None = None) -> None:
        """Returns when the endpoint is gone and its calls are drained. `heir`: who serves those that wait for it."""
        if heir is not None and (line := self.schedule.lines.get(endpoint)) is not None:
            for key, parked in reversed(list(line.parked.items())):  # each goes to the head of the queue
                self.tell(ev.CallerLeft("", key))
                self.tell(ev.Wanted(heir, key, parked.refuse_at - self._clock(), again=True, counted=False))
        self.rates.gone(endpoint)
        await self._when_asleep(endpoint, ev.Removed(endpoint))
        self.efforts.forget(endpoint)

    async def when_ended(self, endpoint: str) -> None:
        """Returns when nothing of the endpoint runs."""
        while (line := self.schedule.lines.get(endpoint)) is not None and not line.asleep():
            await self._asleep_event(endpoint).wait()

    def ago(self, instant: float) -> float:
        """Seconds since an instant of the schedule."""
        return self._clock() - instant

    async def shut_down(self) -> None:
        """Law 9. Returns when nothing runs any more."""
        self.tell(ev.ShutDown())
        while busy := [line.name for line in self.schedule.lines.values() if not line.asleep()]:
            await self._asleep_event(busy[0]).wait()

    async def _when_asleep(self, endpoint: str, event: ev.Event) -> None:
        over = self._asleep_event(endpoint)
        try:
            self.tell(event)
            await over.wait()
        except BaseException:
            if over in (waiting := self._falling_asleep.get(endpoint, [])):
                waiting.remove(over)
            raise

    def _asleep_event(self, endpoint: str) -> anyio.Event:
        over = anyio.Event()
        self._falling_asleep.setdefault(endpoint, []).append(over)
        return over

    # Effects

    def _expect(self, call: Call) -> str:
        self._serial += 1
        key = str(self._serial)  # a request id is the caller's: it need not be unique
        self._waiting[key] = call
        self._keys[id(call)] = key
        return key

    def _answered(self, key: str) -> Call | None:
        call = self._waiting.pop(key, None)
        if call is not None:
            self._keys.pop(id(call), None)
        return call

    def _overdue(self, effect: ef.Overdue) -> None:
        self.tell(ev.Late(effect.replica, self.launcher.last_words(effect.replica)))

    def _grant(self, effect: ef.Grant) -> None:
        call = self._answered(effect.call)
        if call is None:  # law 7: the caller went between the decision and now
            self.tell(ev.Settled(effect.replica))
            return
        phases = self.schedule.replicas[effect.replica].phases if effect.cold else {}
        call.granted(Lease(effect.replica, self.launcher.address(effect.replica), effect.cold, effect.parked, phases))

    def _refuse(self, effect: ef.Refuse) -> None:
        call = self._answered(effect.call)
        if call is not None:
            call.refused(effect.error)

    def _proved(self, effect: ef.Proved) -> None:
        trial = self._trials.get(effect.endpoint)
        if trial is not None:
            trial.replica = effect.replica
            trial.over.set()

    def _disproved(self, effect: ef.Disproved) -> None:
        trial = self._trials.get(effect.endpoint)
        if trial is not None:
            trial.error = effect.error
            trial.over.set()

    def _asleep(self, effect: ef.Asleep) -> None:
        for over in self._falling_asleep.pop(effect.endpoint, []):
            over.set()

    def _hand_over(self, effect: Effort) -> None:
        self.efforts.add(effect)
        self._nudged.set()


def meant(address: Address) -> Target:
    """A quiet read is the control plane's: it neither wakes a replica nor keeps one warm."""
    if address.quiet:
        return Target("", f"{KNOWN}/{address.endpoint}".encode() + address.path)
    return Target(address.endpoint, address.path, address.split)
