"""Deploying and removing endpoints: check, prepare, try once, then write, then publish.

Nothing is registered before one start has succeeded, and the write is one transaction: after any kill the endpoint is
the one before or the one after.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio

from router.core.catalog import Catalog, Learned, Registered
from router.core.refusals import above_limit
from router.core.settings import Settings
from router.shell.engine import Engine
from router.shell.plan import Plan
from torpor.errors import BadRequest, Conflict, NotFound
from torpor.wire import NAME

log = logging.getLogger("torpor.deploys")

SHOWN = 5  # packages named in a deploy's events
CLEAR_WITHIN = 30.0  # seconds that a failed deploy waits for the end of its replica


@dataclass(frozen=True, slots=True)
class Needs:
    """What a bento asks of whoever runs it."""

    folder: Path
    bento: Path
    target: str
    requirements: tuple[str, ...] = ()
    listed: Path | None = None  # the file that lists them
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


# Takes an event of a deploy as it happens: `docs/protocols.md`, "Control plane".
Tell = Callable[[dict[str, Any]], None]


class Deploys:
    """Changes of what exists; one change of an endpoint at a time.

    `forget` removes what an endpoint has left on the disk: its logs, its state. `measure` gives a process's bytes.
    """

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        records: Records,
        packages: Packages,
        ports: Ports,
        forget: Callable[[str], None],
        measure: Callable[[int], int | None],
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._records = records
        self._packages = packages
        self._ports = ports
        self._forget = forget
        self._measure = measure
        self._changing: set[str] = set()

    async def deploy(self, request: Request, tell: Tell) -> None:
        """Returns when the endpoint is live. Raises what hinders it.

        1 check, 2 environment, 3 one start, 4 the endpoint's own port, 5 write, 6 publish. Cancelled before 5 it
        leaves everything as it was; 5 and 6 are not cancelled any more. Nothing is told before 1 has passed.
        """
        with self._change(request.name):
            needs = await anyio.to_thread.run_sync(self._check, request)  # 1
            tell(phase("checked", request.bento))
            tell(phase("preparing environment", shortened(needs.requirements)))
            python = await self._packages.environment(needs, lambda line: tell({"event": "log", "line": line}))  # 2
            try:
                await self._start_and_commit(request, needs, python, tell)
            except BaseException:
                await self._clear(request.name)
                raise

    async def _start_and_commit(self, request: Request, needs: Needs, python: Path, tell: Tell) -> None:
        before = self._catalog.endpoints.get(request.name)
        revision = before.revision + 1 if before else 1
        tell(phase("starting", f"revision {revision}"))
        plan = plan_of(request.name, revision, needs, python, request.env, request.settings, None)
        learned = await self._try(plan, request.settings)  # 3
        try:
            fits(learned.memory, request.settings.memory_limit)
            await self._engine.launcher.prepare(replace(plan, modules=learned.modules))
            await self._commit(self._entry(request, revision, learned, before), before)
        except BaseException:
            self._engine.abandon(request.name)
            raise

    async def _clear(self, name: str) -> None:
        """Of a first deploy that failed nothing stays, once its replica has ended."""
        if name in self._catalog.endpoints:
            return
        with anyio.move_on_after(CLEAR_WITHIN, shield=True) as waited:
            await self._engine.when_ended(name)
        if not waited.cancelled_caught:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._forget, name)

    async def _commit(self, entry: Registered, before: Registered | None) -> None:
        """The old port is given up when the new revision is written, the new one when it could not be."""
        old, new = before.settings.port if before else None, entry.settings.port
        if new is not None and new != old:
            await self._ports.open(new)  # 4
        try:
            with anyio.CancelScope(shield=True):
                await self._records.put(entry)  # 5
        except BaseException:
            if new is not None and new != old:
                self._ports.close(new)
            raise
        self._catalog.put(entry)  # 6
        self._engine.live(entry.name, entry.revision, entry.settings, entry.learned.memory)
        if old is not None and new != old:
            self._ports.close(old)

    async def remove(self, name: str) -> None:
        """Takes the endpoint out of the store, then off the air; returns when its calls are drained.

        Once begun it is seen through, whoever leaves. Raises EndpointNotFound or Conflict.
        """
        with self._change(name), anyio.CancelScope(shield=True):
            entry = self._catalog.named(name)
            await self._records.delete(name)
            self._catalog.remove(name)
            if entry.settings.port is not None:
                self._ports.close(entry.settings.port)
            await self._engine.remove(name)
            await anyio.to_thread.run_sync(self._forget, name)

    async def plan(self, endpoint: str, revision: int) -> Plan:
        """The plan of a live revision, from what is registered."""
        entry = self._catalog.endpoints.get(endpoint)
        if entry is None or entry.revision != revision:
            raise NotFound(f"revision {revision} of {endpoint!r} is not live any more\ncall again")
        needs = await anyio.to_thread.run_sync(self._packages.needs, entry.bento)
        python = await self._packages.environment(needs, log.info)
        return plan_of(endpoint, revision, needs, python, entry.env, entry.settings, entry.learned)

    @contextmanager
    def _change(self, name: str) -> Iterator[None]:
        if name in self._changing:
            raise Conflict(f"endpoint {name!r} is being deployed or removed\nwait until that has ended")
        self._changing.add(name)
        try:
            yield
        finally:
            self._changing.discard(name)

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
        memory = await anyio.to_thread.run_sync(self._measure, said["pid"]) or 0
        return Learned(
            modules=tuple(said.get("modules", ())),
            schema=dict(said.get("schema", {})),
            facts={**said.get("facts", {}), "memory": memory},
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
            calls=before.calls if before else 0,
            cold_starts=before.cold_starts if before else 0,
            last_call_at=before.last_call_at if before else None,
        )


def phase(name: str, detail: str) -> dict[str, Any]:
    return {"event": "phase", "phase": name, "detail": detail}


def fits(memory: int, limit: int) -> None:
    """Raises BadRequest where a replica took more than it may as soon as it was ready."""
    if 0 < limit < memory:
        raise BadRequest(
            f"a replica cannot be kept: {above_limit(memory, limit)}\nraise memory_limit, or deploy a smaller model"
        )


def shortened(requirements: tuple[str, ...]) -> str:
    if len(requirements) > SHOWN:
        return f"{len(requirements)} packages"
    return ", ".join(requirements) or "the platform's own"


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
        threads=settings.threads,
        replicas=settings.max_replicas,
        modules=learned.modules if learned else (),
        sessions=tuple(learned.facts.get("sessions", ())) if learned else (),
        learn=learned is None,
    )
