"""Deploying and removing endpoints: check, prepare, try once, then write, then publish.

Nothing is registered before one start has succeeded, and the write is one transaction: after any kill the endpoint is
the one before or the one after. Which revision is live is a pointer: going back is a start of it and a move.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from router.core.catalog import Catalog, Change, Learned, Registered
from router.core.refusals import above_limit
from router.core.split import KINDS, Rule, Variant, check_variants, line_of
from router.shell.engine import Engine
from router.shell.entries import counted, entry_of
from router.shell.plan import Plan
from router.shell.request import (
    NO_VAULT,
    Environment,
    Needs,
    Packages,
    Part,
    Ports,
    Records,
    Request,
    Tell,
    Vault,
    plan_of,
)
from router.shell.told import phase, shortened
from torpor.errors import BadRequest, Conflict, NotFound
from torpor.wire import NAME

log = logging.getLogger("torpor.deploys")

CLEAR_WITHIN = 30.0  # seconds that a failed deploy waits for the end of its replica


@dataclass(frozen=True, slots=True)
class Proven:
    """A revision that has been started once. `fresh`: it has no row yet."""

    entry: Registered
    part: Part
    fresh: bool = True


class Deploys:
    """Changes of what exists; one change of an endpoint at a time.

    `forget` removes what a line has left on the disk: its logs, its state. `measure` gives a process's bytes.
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
        vault: Vault = NO_VAULT,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._records = records
        self._packages = packages
        self._ports = ports
        self._forget = forget
        self._measure = measure
        self._vault = vault
        self._changing: set[str] = set()
        self.settled: Callable[[str], None] = lambda name: None  # told of each endpoint that has a new live revision

    def check(self, request: Request) -> list[Needs]:
        """What its parts need. Blocks. Raises what is wrong with the request itself."""
        if not NAME.fullmatch(request.name):
            raise BadRequest(
                f"{request.name!r} cannot be an endpoint's name\n"
                "use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends"
            )
        self._catalog.check_port(request.name, request.settings.port)
        if request.variant and request.name not in self._catalog.endpoints:
            raise NotFound(f"{request.name!r} has no live revision yet\ndeploy it first, without a variant")
        check_variants(self._variants_after(request, 0))
        return [self._check_part(part) for part in request.parts()]

    async def deploy(self, request: Request, tell: Tell) -> None:
        """Returns when the endpoint is live. Raises what hinders it.

        1 check, 2 environment, 3 one start, 4 the endpoint's own port, 5 write, 6 publish. Cancelled before 5 it
        leaves everything as it was; 5 and 6 are not cancelled any more. Nothing is told before 1 has passed.
        """
        with self._change(request.name):
            needs = await anyio.to_thread.run_sync(self.check, request)  # 1
            for part in request.parts():
                tell(phase("checked", part.bento))
            first = await anyio.to_thread.run_sync(self._records.newest, request.name) + 1
            entries = [
                entry_of(request, part, number, self._catalog)
                for number, part in enumerate(request.parts(), start=first)
            ]
            variants = self._variants_after(request, first)
            try:
                await self._prove_and_commit(request, entries, needs, variants, tell)
            except BaseException:
                await self._clear([entry.name for entry in entries])
                raise

    async def adopt(self, name: str, number: int, tell: Tell, variants: tuple[Variant, ...] | None = None) -> None:
        """Makes a revision live that was made before. `variants`: those from then on, None for those that are there.

        Raises EndpointNotFound, NotFound, and what hinders its start: then nothing has changed.
        """
        with self._change(name):
            await self._adopt(name, number, tell, variants)

    async def rollback(self, name: str, number: int | None, tell: Tell) -> None:
        """Goes back to a revision, None: to the one that was live before. Raises as `adopt`, and Conflict for the
        live one itself.
        """
        with self._change(name):
            live = self._catalog.known(name)
            if number is None:
                number = await anyio.to_thread.run_sync(self._records.before, name)
            if number is None:
                raise NotFound(
                    f"nothing was live at {name!r} before its revision {live.revision}\nsee `torpor history {name}`"
                )
            if number == live.revision and name not in self._catalog.terminated:
                raise Conflict(f"revision {number} of {name!r} is live already\nsee `torpor history {name}`")
            await self._adopt(name, number, tell)

    async def start(self, name: str, tell: Tell) -> None:
        """Puts a terminated endpoint back on the air; one that is there stays as it is. Raises as `adopt`."""
        with self._change(name):
            entry = self._catalog.known(name)
            if name in self._catalog.terminated:
                await self._adopt(name, entry.revision, tell)

    async def promote(self, name: str, variant: str, tell: Tell) -> None:
        """Makes a variant's revision the live one. A named environment stays where it is; a canary has ended."""
        found = self.variant(name, variant)
        left = tuple(v for v in self._catalog.variants[name] if v.name != variant or v.rule.kind == "address")
        await self.adopt(name, found.revision, tell, left)

    async def vary(self, name: str, variant: str, rule: Rule | None) -> None:
        """Gives a variant another rule, or ends it. Raises EndpointNotFound, NotFound or BadRequest."""
        with self._change(name):
            found = self.variant(name, variant)
            left = tuple(v for v in self._catalog.variants[name] if v.name != variant)
            if rule is not None:
                left = (*left, dataclasses.replace(found, rule=rule))
            check_variants(left)
            with anyio.CancelScope(shield=True):
                await self._records.put(Change(name, variants=left))
                await self._publish(name, [], left)

    async def terminate(self, name: str) -> None:
        """Takes an endpoint off the air and keeps it; returns when its calls are drained. Twice is once."""
        with self._change(name), anyio.CancelScope(shield=True):
            self._catalog.known(name)
            if name in self._catalog.terminated:
                return
            await self._records.terminate(name, True)
            lines = [name, *(line_of(name, v.name) for v in self._catalog.variants.get(name, ()))]
            self._catalog.put(counted(self._catalog.endpoints[name], self._engine))
            self._catalog.terminate(name)
            for line in lines:
                await self._engine.remove(line)

    async def remove(self, name: str) -> None:
        """Takes the endpoint out of the store, then off the air; returns when its calls are drained.

        Once begun it is seen through, whoever leaves. Raises EndpointNotFound or Conflict.
        """
        with self._change(name), anyio.CancelScope(shield=True):
            entry = self._catalog.known(name)
            on_air = name in self._catalog.endpoints
            lines = [line_of(name, v.name) for v in self._catalog.variants.get(name, ())]
            await self._records.delete(name)
            self._catalog.remove(name)
            if entry.settings.port is not None:
                self._ports.close(entry.settings.port)
            for line in [name, *lines] if on_air else lines:
                await self._engine.remove(line)
            for line in (name, *lines):
                await anyio.to_thread.run_sync(self._forget, line)

    async def plan(self, line: str, revision: int) -> Plan:
        """The plan of a live revision, from what is registered."""
        entry = self._catalog.endpoints.get(line) or self._catalog.beside.get(line)
        if entry is None or entry.revision != revision:
            raise NotFound(f"revision {revision} of {line!r} is not live any more\ncall again")
        needs = await anyio.to_thread.run_sync(self._packages.needs, entry.bento)
        on = await self._packages.environment(needs, entry.settings, log.info)
        return self._plan(entry, needs, on, entry.learned)

    def refresh(self, secret: str) -> None:
        """A secret has changed: replicas that start from now on have it."""
        for entry in (*self._catalog.endpoints.values(), *self._catalog.beside.values()):
            if secret in entry.secrets:
                self._engine.live(entry.name, entry.revision, entry.settings, entry.learned.memory)

    def variant(self, name: str, variant: str) -> Variant:
        """Raises EndpointNotFound or NotFound."""
        self._catalog.named(name)
        for each in self._catalog.variants.get(name, ()):
            if each.name == variant:
                return each
        raise NotFound(f"{name!r} has no variant {variant!r}\nsee `torpor show {name}`")

    # Steps

    @contextmanager
    def _change(self, name: str) -> Iterator[None]:
        if name in self._changing:
            raise Conflict(f"endpoint {name!r} is being deployed or removed\nwait until that has ended")
        self._changing.add(name)
        try:
            yield
        finally:
            self._changing.discard(name)

    def _check_part(self, part: Part) -> Needs:
        self._packages.check(part.settings)
        needs = self._packages.needs(part.bento)
        there = {**self._vault.env(tuple(part.spec.get("secrets") or ())), **part.env}
        missing = [name for name in needs.required_env if name not in there]
        if missing:
            raise BadRequest(
                f"the service needs the environment variables {', '.join(missing)}\n"
                f"give them with the deploy: --env {missing[0]}=..."
            )
        return needs

    def _variants_after(self, request: Request, first: int) -> tuple[Variant, ...]:
        """A deploy of the live revision ends a canary and a shadow; what has an address of its own stays."""
        parts = [(number, part) for number, part in enumerate(request.parts(), start=first) if part.variant]
        named = {part.variant for _, part in parts}
        now = self._catalog.variants.get(request.name, ())
        kept = [v for v in now if v.name not in named and (request.variant or v.rule.kind == "address")]
        made = [Variant(part.variant, number, part.rule or Rule("address"), time.time()) for number, part in parts]
        return (*kept, *made)

    async def _adopt(self, name: str, number: int, tell: Tell, variants: tuple[Variant, ...] | None = None) -> None:
        kept = self._catalog.known(name)
        found = await anyio.to_thread.run_sync(self._records.revision, name, number)
        # What was counted is the endpoint's: its row tells also what the schedule still counts.
        entry = dataclasses.replace(
            found, calls=kept.calls, cold_starts=kept.cold_starts, last_call_at=kept.last_call_at
        )
        self._catalog.check_port(name, entry.settings.port)
        part = Part(entry.bento, entry.env, entry.settings, entry.spec)
        needs = await anyio.to_thread.run_sync(self._check_part, part)
        tell(phase("checked", entry.bento))
        proven = await self._prove(Proven(entry, part, fresh=False), needs, tell)
        try:
            await self._commit(name, [proven], variants)
        except BaseException:
            self._engine.abandon(name)
            raise

    async def _prove_and_commit(
        self, request: Request, entries: list[Registered], needs: list[Needs], variants: tuple[Variant, ...], tell: Tell
    ) -> None:
        proven: list[Proven] = []
        try:
            for entry, part, need in zip(entries, request.parts(), needs, strict=True):
                proven.append(await self._prove(Proven(entry, part), need, tell))
            await self._commit(request.name, proven, variants)
        except BaseException:
            for each in proven:
                self._engine.abandon(each.entry.name)
            raise

    async def _prove(self, proven: Proven, needs: Needs, tell: Tell) -> Proven:
        """2 and 3: with what its first start taught."""
        entry = proven.entry
        tell(phase("preparing environment", shortened(needs.requirements)))
        on = await self._packages.environment(needs, entry.settings, lambda line: tell({"event": "log", "line": line}))
        tell(phase("starting", f"revision {entry.revision}"))
        plan = self._plan(entry, needs, on, None if proven.fresh else entry.learned)
        learned = await self._try(plan, entry)
        try:
            fits(learned.memory, entry.settings.memory_limit)
            await self._engine.launcher.prepare(dataclasses.replace(plan, modules=learned.modules))
        except BaseException:
            self._engine.abandon(entry.name)
            raise
        return dataclasses.replace(proven, entry=dataclasses.replace(entry, learned=learned))

    async def _try(self, plan: Plan, entry: Registered) -> Learned:
        replica = await self._engine.prove(plan, entry.settings)
        if not plan.learn:
            return entry.learned
        said = self._engine.launcher.said(replica)
        sizes = [await anyio.to_thread.run_sync(self._measure, pid) for pid in said["pids"]]
        memory = sum(size or 0 for size in sizes)
        return Learned(
            modules=tuple(said.get("modules", ())),
            schema=dict(said.get("schema", {})),
            facts={**said.get("facts", {}), "memory": memory},
            phases=dict(said.get("phases", {})),
        )

    async def _clear(self, lines: list[str]) -> None:
        """Of a first deploy that failed nothing stays, once its replica has ended; of a first one of a variant too."""
        for line in lines:
            if any(
                line in known for known in (self._catalog.endpoints, self._catalog.beside, self._catalog.terminated)
            ):
                continue
            with anyio.move_on_after(CLEAR_WITHIN, shield=True) as waited:
                await self._engine.when_ended(line)
            if not waited.cancelled_caught:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._forget, line)

    async def _commit(self, name: str, proven: list[Proven], variants: tuple[Variant, ...] | None) -> None:
        """The old port is given up when the new revision is written, the new one when it could not be."""
        live = next((each.entry for each in proven if not each.part.variant), None)
        before = self._catalog.endpoints.get(name) or self._catalog.terminated.get(name)
        old = before.settings.port if before else None
        new = live.settings.port if live is not None else old
        if new is not None and new != old:
            await self._ports.open(new)  # 4
        fresh = tuple(each.entry for each in proven if each.fresh)
        try:
            await self._write(Change(name, fresh, live, variants))  # 5
        except BaseException:
            if new is not None and new != old:
                self._ports.close(new)
            raise
        with anyio.CancelScope(shield=True):
            await self._publish(name, [each.entry for each in proven], variants)  # 6
        if old is not None and new != old:
            self._ports.close(old)

    async def _write(self, change: Change) -> None:
        with anyio.CancelScope(shield=True):
            await self._records.put(change)

    async def _publish(self, name: str, entries: list[Registered], variants: tuple[Variant, ...] | None) -> None:
        """At once, but for the end of variants that are none any more: it returns when those are drained."""
        gone: list[str] = []
        shared = {line_of(name, v.name) for v in self._catalog.variants.get(name, ()) if v.rule.kind in KINDS}
        for entry in entries:
            if entry.name == name:
                self._catalog.put(dataclasses.replace(entry, terminated=False))
                self.settled(name)
        if variants is not None:
            gone = self._catalog.vary(name, variants, {e.name: e for e in entries if e.name != name})
        for entry in entries:
            self._engine.live(entry.name, entry.revision, entry.settings, entry.learned.memory)
        for line in gone:
            await self._engine.remove(line, name if line in shared else None)
            await anyio.to_thread.run_sync(self._forget, line)

    def _plan(self, entry: Registered, needs: Needs, on: Environment, learned: Learned | None) -> Plan:
        return plan_of(entry, needs, on, self._vault, learned)


def fits(memory: int, limit: int) -> None:
    """Raises BadRequest where a replica took more than it may as soon as it was ready."""
    if 0 < limit < memory:
        raise BadRequest(
            f"a replica cannot be kept: {above_limit(memory, limit)}\nraise memory_limit, or deploy a smaller model"
        )
