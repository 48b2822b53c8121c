"""Replicas in containers of their own: each a fork of a fork-server that is the first process of its container.

A replica has a container to itself, made before it is wanted where that could be foreseen, or is a fork in one that its
endpoint keeps (a template of the schedule). What it is told and what it says are the process launcher's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Container, Coroutine
from pathlib import Path
from secrets import token_hex
from typing import Any

from router.core.events import Event, Kept, Ready, Unkept
from router.disk import disk
from router.launch.children import Children, Forked
from router.launch.container.api import ContainerApi
from router.launch.container.box import Box
from router.launch.container.owner import give, let_read
from router.launch.container.package import package
from router.launch.container.platform import Platform
from router.launch.container.spec import RUN, Place, alike, config, mounted
from router.launch.container.turns import Turns
from router.launch.files import VARIABLE
from router.launch.forker import Forker
from router.launch.logs import Logs
from router.launch.machine import memory
from router.launch.rundir import RunFolder
from router.shell.plan import Plan
from torpor.errors import EngineFailed, InternalError, TorporError

log = logging.getLogger("torpor.launcher")

KILLED = -signal.SIGKILL
PAUSE_AGAIN = 0.1  # seconds


class ContainerLauncher(Children):
    """Implements the engine's `Launching`. `home`: BentoML's, with the router's own models. `limit`: bytes of a
    container whose revision says nothing."""

    def __init__(
        self, folder: Path, logs: Logs, run: RunFolder, api: ContainerApi, platform: Platform, home: Path, limit: int
    ) -> None:
        super().__init__(folder, logs, run)
        self._api = api
        self._home = home
        self._limit = limit
        self._platform = platform
        self._boxes: dict[str, Box] = {}  # all that may have a container
        self._kept: dict[str, Box] = {}  # those that are templates, by that id
        self._made: dict[str, tuple[Plan, Box]] = {}  # by line: made, and not started
        self._ahead: dict[str, Plan] = {}  # by line: that have one made ahead
        self._making: dict[str, asyncio.Lock] = {}
        self._turns = Turns()
        self._coming: dict[str, Box] = {}  # by replica: of its own, and on its way
        self._readable: set[Path] = set()  # what the containers' user has been let to read
        self._work: set[asyncio.Task[None]] = set()
        self._closing = False

    async def close(self) -> None:
        """Ends and removes every container; the replicas are stopped before."""
        self._closing = True
        for box in list(self._boxes.values()):
            self._bury(box)
        while self._work:
            await asyncio.wait(self._work)
        await self._platform.reap(())  # what could not be removed while the engine was down
        await self._api.close()

    # The engine's Launching

    async def prepare(self, plan: Plan) -> None:
        """Makes a container for the next start."""
        await self._api.kind()  # that it answers is known before a call waits
        assert plan.contained is not None
        if plan.contained.ahead:
            self._ahead[plan.endpoint] = plan
            await self._make_ahead(plan)
        else:
            self._ahead.pop(plan.endpoint, None)
            self._discard(plan.endpoint)

    async def _parent(self, replica: str, plan: Plan, template: str | None) -> Forker:
        kept = self._kept.get(template) if template else None
        if kept is not None and kept.alive:
            return kept
        try:
            return await self._started(plan, replica)
        finally:
            self._coming.pop(replica, None)

    async def _left(self, parent: Forker) -> None:
        if isinstance(parent, Box) and not parent.template:
            self._bury(parent)

    async def stop(self, replica: str, within: float) -> None:
        """One whose container does not come up in that time is not awaited for longer."""
        if (under_way := self._starting.get(replica)) is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(under_way.wait(), within)
            if (coming := self._coming.get(replica)) is not None:
                coming.kill()
        forked = self._replicas.get(replica)
        if forked is not None and isinstance(forked.server, Box) and forked.server.frozen:
            try:
                await forked.server.unpause()  # to hear TERM, and end what it has begun
            except TorporError:
                forked.server.kill()
        await super().stop(replica, within)

    async def pause(self, replica: str) -> None:
        """Tried again once: runc's freezer gives up now and then on a busy machine."""
        box = self._own_box(replica)
        try:
            await box.pause()
        except EngineFailed:
            await asyncio.sleep(PAUSE_AGAIN)
            await box.pause()

    async def resume(self, replica: str, tell: Callable[[Event], None]) -> None:
        box, began = self._own_box(replica), time.monotonic()
        await box.unpause()
        said = self._replicas[replica].said
        tell(Ready(replica, said.get("in_flight_limit"), {"resume": time.monotonic() - began}))

    def has(self, name: str) -> bool:
        return name in self._kept or super().has(name)

    # Templates: containers that are kept to fork in

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        box = await self._started(plan)
        box.template = True
        if template in self._dropped:
            self._dropped.discard(template)
            self._bury(box)
        else:
            self._kept[template] = box
            try:
                await box.preload(plan.modules)
                tell(Kept(template, await self._size(box)))
            except TorporError:
                self._bury(box)
                raise
        await box.over.wait()
        tell(Unkept(template))

    async def drop(self, template: str) -> None:
        box = self._kept.get(template)
        if box is None:
            self._dropped.add(template)  # before it was made
            return
        for forked in [f for f in self._replicas.values() if f.server is box]:
            await forked.over.wait()
        self._bury(box)
        await box.over.wait()

    # What it takes

    def pids(self) -> dict[str, tuple[int, ...]]:
        """The processes of replicas and templates, by id, as far as the router sees them."""
        found = {each.id: pids for each in self._replicas.values() if (pids := self._pids_of(each))}
        return found | {name: (box.pid,) for name, box in self._kept.items() if box.pid is not None}

    def _pids_of(self, forked: Forked) -> tuple[int, ...]:
        """With the first process of a container that is its own: what both share counts half for each."""
        box = forked.server
        assert isinstance(box, Box)
        if box.template or box.pid is None:
            return super()._pids_of(forked)
        return (*super()._pids_of(forked), box.pid)

    def own_pids(self) -> list[int]:
        """None: every process of a container is a replica's or a template's."""
        return []

    async def unseen(self) -> dict[str, int]:
        """Bytes of those whose processes the router does not see, as their engine counts them, by id."""
        found = {}
        for each in list(self._replicas.values()):
            if each.pid is None and isinstance(each.server, Box) and each.server.container and not each.server.template:
                found[each.id] = await self._api.memory(each.server.container)
        for name, box in list(self._kept.items()):
            if box.pid is None and box.container:
                found[name] = await self._api.memory(box.container)
        return found

    async def sweep(self, lines: Container[tuple[str, int]]) -> None:
        """Removes containers that were made for revisions which are not live any more, and those that nobody owns."""
        for line, (plan, _) in list(self._made.items()):
            if (line, plan.revision) not in lines:
                self._ahead.pop(line, None)
                self._discard(line)
        await self._platform.reap(self._boxes)

    # Containers

    async def _started(self, plan: Plan, replica: str = "") -> Box:
        """One that was made ahead, or is made now: also where somebody has removed what was ahead (`prune` does)."""
        async with self._making.setdefault(plan.endpoint, asyncio.Lock()):
            made = self._made.get(plan.endpoint)
            if made is not None and alike(made[0], plan):
                del self._made[plan.endpoint]
                box = made[1]
            else:
                box = await self._make(plan)
        try:
            await self._start(box, replica)
        except EngineFailed:
            if not box.missing:
                raise
            async with self._making[plan.endpoint]:
                box = await self._make(plan)
            await self._start(box, replica)
        return box

    async def _start(self, box: Box, replica: str) -> None:
        if replica:
            self._coming[replica] = box
        try:
            async with self._turns.turn():
                await box.start()
        except BaseException:
            self._bury(box)
            raise

    async def _make(self, plan: Plan) -> Box:
        """A container that is not started."""
        box = Box(box_id(plan), plan.endpoint, self._api, self._run, self._heard, self._bury)
        self._boxes[box.id] = box
        state = self._folder / "endpoints" / plan.endpoint
        try:
            kind = await self._api.kind()
            with disk(self._folder):
                await asyncio.to_thread(self._furnish, box.folder, state, plan)
                own = await asyncio.to_thread(package, self._folder)
            place = Place(box.folder, state, own, self._home)
            self._platform.used()
            platform = self._platform.id()
            await box.create(config(plan, kind, platform, place, self._limit), f"torpor-{platform}-{box.id}")
        except BaseException:
            self._bury(box)
            raise
        return box

    def _furnish(self, run: Path, state: Path, plan: Plan) -> None:
        """What the container's user has to find, made and readable."""
        run.mkdir(mode=0o700)
        state.mkdir(parents=True, exist_ok=True)
        give(run)
        give(state)
        for each in mounted(plan):
            if each not in self._readable:
                let_read(each)
                self._readable.add(each)

    async def _make_ahead(self, plan: Plan) -> None:
        """One that the next start of the plan finds made; none where there is one already."""
        async with self._making.setdefault(plan.endpoint, asyncio.Lock()):
            made = self._made.get(plan.endpoint)
            if self._closing or (made is not None and alike(made[0], plan)):
                return
            self._discard(plan.endpoint)
            try:
                box = await self._make(plan)
                wanted = self._ahead.get(plan.endpoint)
                if wanted is None or not alike(wanted, plan):  # it is not any more
                    return self._bury(box)
                self._made[plan.endpoint] = (plan, box)
            except TorporError as error:  # the start that needs one makes it, or says why it cannot
                log.warning("endpoint %s: no container ahead: %s", plan.endpoint, str(error).partition("\n")[0])

    def _discard(self, line: str) -> None:
        made = self._made.pop(line, None)
        if made is not None:
            self._bury(made[1])

    def _bury(self, box: Box) -> None:
        """Its fork-server has hung up, or is to: what it has forked ends with it, the kernel sees to that."""
        if box.id in self._boxes and not box.buried:
            box.buried = True
            self._do(self._buried(box))

    async def _buried(self, box: Box) -> None:
        self._kept = {name: each for name, each in self._kept.items() if each is not box}
        await box.ended()
        for forked in [f for f in self._replicas.values() if f.server is box]:
            self._exited(forked, KILLED, box.why)
        await box.remove()
        del self._boxes[box.id]
        plan = self._ahead.get(box.endpoint)
        if plan is not None and not self._closing:
            await self._make_ahead(plan)

    def _own_box(self, replica: str) -> Box:
        forked = self._replicas.get(replica)
        if forked is None or not isinstance(forked.server, Box) or forked.server.template:
            raise InternalError(f"replica {replica} has no container of its own\nthe next call starts another")
        return forked.server

    async def _size(self, box: Box) -> int:
        if box.pid is not None:
            return memory(box.pid) or 0
        return await self._api.memory(box.container) if box.container else 0

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # What is forked in them

    def _spec(self, name: str, plan: Plan, parent: Forker) -> dict[str, Any]:
        assert isinstance(parent, Box)
        spec = super()._spec(name, plan, parent)
        folder = parent.folder / name
        give(folder)
        if VARIABLE in spec["env"]:
            spec["env"][VARIABLE] = f"{RUN}/{name}/secrets"
        return {**spec, "run_folder": f"/tmp/{name}", "alone": not parent.template}

    def _run_of(self, name: str, parent: Forker) -> Path:
        assert isinstance(parent, Box)
        return parent.folder / name

    def _exists(self, forked: Forked) -> None:
        """The engine's labels tell whose it is."""

    def _end_group(self, forked: Forked) -> None:
        """Its fork-server sees to what it leaves; a container that was its own has nothing more to do."""
        box = forked.server
        if isinstance(box, Box) and not box.template:
            self._bury(box)


def box_id(plan: Plan) -> str:
    return f"{plan.endpoint}-{plan.revision}-{token_hex(4)}".replace("~", "--")
