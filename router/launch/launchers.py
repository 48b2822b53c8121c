"""The launchers of a router as one: each replica is started the way its plan says, and found again by its id."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from router.core.events import Event
from router.launch.children import Children
from router.launch.container.launcher import ContainerLauncher
from router.launch.process import ProcessLauncher
from router.shell.plan import Plan


class Launchers:
    """Implements the engine's `Launching`."""

    def __init__(self, processes: ProcessLauncher, containers: ContainerLauncher) -> None:
        self._processes = processes
        self._containers = containers

    def open(self) -> list[int]:
        """Ends the processes that an earlier router left running; the pids. Blocks for as long as that takes."""
        return self._processes.open()

    async def close(self) -> None:
        """Ends what is not a replica; the replicas are stopped before."""
        await self._containers.close()
        await self._processes.close()

    async def prepare(self, plan: Plan) -> None:
        await self._for(plan).prepare(plan)

    async def start(self, replica: str, plan: Plan, tell: Callable[[Event], None], template: str | None = None) -> None:
        await self._for(plan).start(replica, plan, tell, template)

    async def stop(self, replica: str, within: float) -> None:
        await self._with(replica).stop(replica, within)

    async def pause(self, replica: str) -> None:
        await self._containers.pause(replica)

    async def resume(self, replica: str, tell: Callable[[Event], None]) -> None:
        await self._containers.resume(replica, tell)

    def address(self, replica: str) -> str:
        return self._processes.address(replica)  # all are in one run folder

    def said(self, replica: str) -> Mapping[str, Any]:
        return self._with(replica).said(replica)

    def last_words(self, replica: str) -> tuple[str, ...]:
        return self._with(replica).last_words(replica)

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        await self._for(plan).keep(template, plan, tell)

    async def drop(self, template: str) -> None:
        for each in (self._processes, self._containers):
            if each.has(template):
                return await each.drop(template)
        for each in (self._processes, self._containers):  # before it was made: whoever makes it then drops it
            await each.drop(template)

    def pids(self) -> dict[str, tuple[int, ...]]:
        return self._processes.pids() | self._containers.pids()

    def own_pids(self) -> list[int]:
        return self._processes.own_pids() + self._containers.own_pids()

    async def unseen(self) -> dict[str, int]:
        """Bytes of replicas and templates whose processes the router does not see, by id."""
        return await self._containers.unseen()

    async def rest(self, unused: float) -> None:
        await self._processes.rest(unused)

    async def sweep(self, lines: Container[tuple[str, int]]) -> None:
        """Removes containers that nobody owns. `lines`: names and revisions of what is live."""
        await self._containers.sweep(lines)

    def _for(self, plan: Plan) -> ProcessLauncher | ContainerLauncher:
        return self._processes if plan.contained is None else self._containers

    def _with(self, replica: str) -> Children:
        return self._containers if self._containers.has(replica) else self._processes
