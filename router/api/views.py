"""The control plane's answers: endpoints and replicas as callers see them (`torpor/wire.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from router.api.rungs import Rungs
from router.core.catalog import Registered, Revision
from router.core.line import Line, Replica, Template
from router.core.split import Variant, line_of
from router.shell.engine import Engine
from torpor.wire import (
    ENDPOINTS,
    EndpointState,
    EndpointView,
    ReplicaView,
    RevisionView,
    RuleView,
    State,
    TemplateView,
    VariantView,
)


class Views:
    """`url` is where the main listener is reached; `port_fault` says why an endpoint's own port does not listen."""

    def __init__(
        self, engine: Engine, url: str, port_fault: Callable[[int | None], str | None], domain: str | None = None
    ) -> None:
        self._engine = engine
        self._port_fault = port_fault
        self._url = url
        self._domain = domain
        self._epoch = time.time() - time.monotonic()
        self._rungs = Rungs(engine.schedule, self._epoch)

    def endpoint(self, name: str) -> EndpointView:
        """Of one that is terminated too; a variant's by its line. Raises EndpointNotFound."""
        catalog = self._engine.catalog
        entry = catalog.terminated.get(name) or catalog.named(name)
        line = self._engine.schedule.lines.get(name)
        replicas = [self._replica(r) for r in line.replicas.values() if r.state is not State.STOPPED] if line else []
        port = entry.settings.port
        return EndpointView(
            name=name,
            state=str(EndpointState.TERMINATED) if entry.terminated else state_of(line),
            revision=entry.revision,
            bento=entry.bento,
            url=f"{self._url}{ENDPOINTS}/{name}",
            own_url=f"{self._url.rpartition(':')[0]}:{port}" if port is not None else None,
            created_at=entry.created_at,
            calls=entry.calls + (line.calls if line else 0),
            cold_starts=entry.cold_starts + (line.cold_starts if line else 0),
            in_flight=line.in_flight() if line else 0,
            parked=len(line.parked) if line else 0,
            last_call_at=self._last_call(entry, line),
            replicas=replicas,
            rung=self._rungs.of(name, entry.settings, entry.terminated, self._engine.ago(0.0)),
            template=template_view(line.template) if line and line.template else None,
            no_template=line.no_template if line else None,
            settings=settings_view(entry),
            learned={
                "modules": list(entry.learned.modules),
                "facts": entry.learned.facts,
                "phases": entry.learned.phases,
            },
            schema=entry.learned.schema,
            last_error=line.error.message if line and line.error else self._port_fault(port),
            variants=[self._variant(name, variant) for variant in catalog.variants.get(name, ())],
            access=entry.access,
            secrets=list(entry.secrets),
            terminated=entry.terminated,
        )

    def address(self, name: str, port: int | None) -> str:
        """Where an endpoint is reached with no path before its own: by its port, or by its name; else by its path."""
        scheme, _, rest = self._url.partition("://")
        host, _, main = rest.rpartition(":")
        if port is not None:
            return f"{scheme}://{host}:{port}"
        return f"{scheme}://{name}.{self._domain}:{main}" if self._domain else f"{self._url}{ENDPOINTS}/{name}"

    def all(self) -> list[EndpointView]:
        return [self.endpoint(n) for n in sorted((*self._engine.catalog.endpoints, *self._engine.catalog.terminated))]

    def _variant(self, name: str, variant: Variant) -> VariantView:
        run_as = line_of(name, variant.name)
        line = self._engine.schedule.lines.get(run_as)
        rule = variant.rule
        shown = RuleView(kind=rule.kind, by=rule.by, weight=rule.weight)
        if rule.watch:
            shown["watch"] = rule.watch
        return VariantView(
            name=variant.name,
            revision=variant.revision,
            bento=self._engine.catalog.beside[run_as].bento,
            rule=shown,
            state=state_of(line),
            url=f"{self._url}{ENDPOINTS}/{run_as}",
            calls=line.calls if line else 0,
        )

    def _last_call(self, entry: Registered, line: Line | None) -> float | None:
        return self._epoch + line.last_call if line and line.last_call is not None else entry.last_call_at

    def _replica(self, replica: Replica) -> ReplicaView:
        pid = self._engine.launcher.said(replica.id).get("pid")
        return ReplicaView(
            id=replica.id,
            state=str(replica.state),
            pid=pid,
            in_flight=replica.in_flight,
            memory=replica.memory or None,
            cards=list(replica.cards),
            gpu_memory=replica.gpu_memory if replica.cards else None,
            phases=replica.phases,
            since=self._epoch + replica.since,
        )


def state_of(line: Line | None) -> str:
    """An endpoint's state through its replicas: the one nearest to answering counts."""
    states = {r.state for r in line.replicas.values() if not r.trial} if line else set()
    for state, shown in (
        (State.READY, EndpointState.AWAKE),
        (State.STARTING, EndpointState.WAKING),
        (State.DRAINING, EndpointState.FALLING_ASLEEP),
        (State.STOPPING, EndpointState.FALLING_ASLEEP),
    ):
        if state in states:
            return str(shown)
    return str(EndpointState.FAILED if line and line.error else EndpointState.ASLEEP)


def template_view(template: Template) -> TemplateView:
    state = "ending" if template.ending else "kept" if template.kept else "loading"
    return TemplateView(id=template.id, state=state, memory=template.memory)


def revision_view(revision: Revision, state: list[str], usual: dict[str, Any]) -> RevisionView:
    """`usual`: the settings that go without saying."""
    return RevisionView(
        number=revision.number,
        bento=revision.bento,
        created_at=revision.created_at,
        creator=revision.creator,
        state=state,
        env=sorted(revision.env),
        secrets=list(revision.spec.get("secrets") or ()),
        access=revision.spec.get("access"),
        settings={name: value for name, value in revision.settings.items() if value != usual.get(name, value)},
    )


def settings_view(entry: Registered) -> dict[str, Any]:
    return {name: getattr(entry.settings, name) for name in entry.settings.__slots__}
