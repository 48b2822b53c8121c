"""Deploying and removing endpoints: check, prepare, try once, then write, then publish.

Nothing is registered before one start has succeeded, and the write is one transaction: after any kill the endpoint is
the one before or the one after.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio

from router.core.catalog import Catalog, Learned, Registered
from router.core.settings import Settings
from router.shell.engine import Engine
from router.shell.plan import Plan
from torpor.errors import BadRequest, Conflict, NotFound
from torpor.wire import NAME


@dataclass(frozen=True, slots=True)
class Needs:
    """What a bento asks of whoever runs it."""

    folder: Path
    bento: Path
    target: str
    requirements: tuple[str, ...] = ()
    required_env: tuple[str, ...] = ()


class Records(Protocol):
    """Where endpoints are kept: each call returns when the write is on the disk."""

    async def put(self, entry: Registered) -> None: ...

    async def delete(self, name: str) -> None: ...


class Packages(Protocol):
    """Where bentos and their environments are."""

    def needs(self, tag: str) -> Needs:
        """Raises NotFound, InvalidService or ModelNotFound."""
        ...

    async def environment(self, needs: Needs, tell: Callable[[str], None]) -> Path:
        """The interpreter that runs it, made first where it is not there. Raises InvalidService."""
        ...


class Ports(Protocol):
    """The endpoints' own ports."""

    async def open(self, port: int) -> int:
        """Raises Conflict where something else listens."""
        ...

    def close(self, port: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What a deploy asks for."""

    name: str
    bento: str
    env: dict[str, str]
    settings: Settings


class Deploys:
    """Changes of what exists; one change of an endpoint at a time."""

    def __init__(self, engine: Engine, catalog: Catalog, records: Records, packages: Packages, ports: Ports) -> None:
        self._engine = engine
        self._catalog = catalog
        self._records = records
        self._packages = packages
        self._ports = ports
        self._changing: set[str] = set()

    async def deploy(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        """Yields `{"phase", "detail"}` as it goes on and `{"endpoint": name}` at last. Raises what hinders it.

        1 check, 2 environment, 3 one start, 4 the endpoint's own port, 5 write, 6 publish. Closing the iterator
        before 5 leaves everything as it was.
        """
        self._begin(request.name)
        try:
            needs = await anyio.to_thread.run_sync(self._check, request)  # 1
            yield {"phase": "checked", "detail": request.bento}
            yield {"phase": "preparing environment", "detail": ", ".join(needs.requirements) or "the platform's own"}
            python = await self._packages.environment(needs, lambda line: None)  # 2
            before = self._catalog.endpoints.get(request.name)
            revision = before.revision + 1 if before else 1
            yield {"phase": "starting", "detail": f"revision {revision}"}
            plan = plan_of(request.name, revision, needs, python, request.env, request.settings, None)
            learned = await self._try(plan, request.settings)  # 3
            try:
                await self._engine.launcher.prepare(replace(plan, modules=learned.modules))
                entry = self._entry(request, revision, learned, before)
                await self._move_port(before, entry)  # 4
                await self._records.put(entry)  # 5
            except BaseException:
                self._engine.abandon(request.name)
                raise
            self._catalog.put(entry)  # 6
            self._engine.live(entry.name, revision, entry.settings)
            yield {"endpoint": entry.name}
        finally:
            self._changing.discard(request.name)

    async def remove(self, name: str) -> None:
        """Takes the endpoint out of the store, then off the air; returns when its calls are drained."""
        self._begin(name)
        try:
            entry = self._catalog.endpoints[name]
            await self._records.delete(name)
            self._catalog.remove(name)
            if entry.settings.port is not None:
                self._ports.close(entry.settings.port)
            await self._engine.remove(name)
        finally:
            self._changing.discard(name)

    async def plan(self, endpoint: str, revision: int) -> Plan:
        """The plan of a live revision, from what is registered."""
        entry = self._catalog.endpoints.get(endpoint)
        if entry is None or entry.revision != revision:
            raise NotFound(f"revision {revision} of {endpoint!r} is not live any more\ncall again")
        needs = await anyio.to_thread.run_sync(self._packages.needs, entry.bento)
        python = await self._packages.environment(needs, lambda line: None)
        return plan_of(endpoint, revision, needs, python, entry.env, entry.settings, entry.learned)

    def _begin(self, name: str) -> None:
        if name in self._changing:
            raise Conflict(f"endpoint {name!r} is being deployed or removed\nwait until that has ended")
        self._changing.add(name)

    def _check(self, request: Request) -> Needs:
        if not NAME.fullmatch(request.name):
            raise BadRequest(
                f"{request.name!r} cannot be an endpoint's name\n"
                "use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends"
            )
        self._catalog.check_port(request.name, request.settings.port)
        needs = self._packages.needs(request.bento)
        missing = [name for name in needs.required_env if name not in request.env]
        if missing:
            raise BadRequest(
                f"the service needs the environment variables {', '.join(missing)}\n"
                f"give them with the deploy: --env {missing[0]}=..."
            )
        return needs

    async def _try(self, plan: Plan, settings: Settings) -> Learned:
        replica = await self._engine.prove(plan, settings)
        said = self._engine.launcher.said(replica)
        return Learned(
            modules=tuple(said.get("modules", ())),
            schema=dict(said.get("schema", {})),
            facts=dict(said.get("facts", {})),
            phases=dict(said.get("phases", {})),
        )

    def _entry(self, request: Request, revision: int, learned: Learned, before: Registered | None) -> Registered:
        return Registered(
            name=request.name,
            revision=revision,
            bento=request.bento,
            env=request.env,
            settings=request.settings,
            created_at=before.created_at if before else time.time(),
            learned=learned,
        )

    async def _move_port(self, before: Registered | None, entry: Registered) -> None:
        old = before.settings.port if before else None
        if entry.settings.port is not None and entry.settings.port != old:
            await self._ports.open(entry.settings.port)
        if old is not None and old != entry.settings.port:
            self._ports.close(old)


def plan_of(
    endpoint: str,
    revision: int,
    needs: Needs,
    python: Path,
    env: dict[str, str],
    settings: Settings,
    learned: Learned | None,
) -> Plan:
    """`learned`: None for the first start, which is to report what it imports."""
    return Plan(
        endpoint=endpoint,
        revision=revision,
        folder=needs.folder,
        bento=needs.bento,
        target=needs.target,
        python=python,
        env=env,
        concurrency=settings.concurrency,
        modules=learned.modules if learned else (),
        sessions=tuple(learned.facts.get("sessions", ())) if learned else (),
        learn=learned is None,
    )
