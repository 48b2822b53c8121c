"""`GET /metrics`: what is counted, in Prometheus' text format 0.0.4, made when somebody asks.

Counts begin at 0 with the router, or with the endpoint, so that a lower count is always a new beginning. Labels are
bounded: endpoints are those of the catalogue that did anything since, codes those of HTTP. What is of a variant has its
name as a label, which what is of the live revision lacks.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

import torpor
from router.api.views import state_of
from router.core.cards import Cards
from router.core.line import Line
from router.core.split import BETWEEN
from router.proxy.tally import Histogram, Tallies, Tally
from router.shell.engine import Engine
from router.shell.gauge import Processes
from router.shell.meters import Lives, Meters
from router.shell.shadow import Shadows
from torpor.wire import EndpointState, State

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
RUNNING = tuple(state for state in State if state is not State.STOPPED)


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint, or a variant of it, at the moment of the scrape. Calls and lives are the counts themselves, which
    only grow.
    """

    name: str
    variant: tuple[str, ...]  # its name, none for the live revision
    calls: Tally
    lives: Lives
    in_flight: int
    parked: int
    replicas: Counter[State]
    template: bool
    memory: int  # bytes of replicas and template, as last measured
    on_cards: dict[str, int]  # bytes of replicas on graphics cards, by the card's UUID
    refused: dict[str, int]  # calls, by what refused them before the queue
    copies: dict[str, int]  # to its shadow, by what became of them


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: of replicas and templates as last measured, of the platform now; the limit that all share."""

    replicas: int
    templates: int
    platform: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """`measure` gives a process's bytes, None when it is gone; `started_at` is in seconds since the epoch."""

    engine: Engine
    tallies: Tallies
    meters: Meters
    processes: Processes
    measure: Callable[[int], int | None]
    started_at: float
    shadows: Shadows | None = None

    async def all(self) -> bytes:
        """Of the whole platform. What takes long is done beside the event loop."""
        known = self.engine.catalog.endpoints
        there = {*known, *self.engine.catalog.beside}
        active = sorted({*self.tallies.endpoints, *self.meters.endpoints} & there)
        rows = [self._row(name) for name in active]
        states = Counter(state_of(self.engine.schedule.lines.get(name)) for name in known)
        evictions, pids = self.engine.schedule.room.evictions, [os.getpid(), *self.processes.own_pids()]
        replicas = sum(r.memory for r in self.engine.schedule.replicas.values())
        templates = sum(t.memory for t in self.engine.schedule.shelf.templates.values())

        def page() -> bytes:
            memory = Memory(replicas, templates, sum(self.measure(pid) or 0 for pid in pids), self._limit())
            whole = self._whole(states, evictions, memory)
            return rendered([*whole, *of_endpoints(rows), *ProcessCollector(registry=None).collect()])

        return await asyncio.to_thread(page)

    def one(self, endpoint: str) -> bytes:
        """Of one endpoint, known without a replica."""
        return rendered(of_endpoints([self._row(endpoint)]))

    @property
    def _cards(self) -> Cards:
        return self.engine.schedule.cards

    def _limit(self) -> int | None:
        return self.engine.schedule.room.limit

    def _row(self, name: str) -> Row:
        line = self.engine.schedule.lines.get(name) or Line(name, self.engine.catalog.named(name).settings)
        template = line.template
        calls = self.tallies.endpoints.get(name) or Tally()
        endpoint, *variant = name.split(BETWEEN)
        return Row(
            name=endpoint,
            variant=tuple(variant),
            calls=calls,
            lives=self.meters.endpoints.get(name) or Lives(),
            in_flight=line.in_flight(),
            parked=len(line.parked),
            replicas=Counter(replica.state for replica in line.replicas.values()),
            template=template is not None and template.kept,
            on_cards={card: size for r in line.replicas.values() for card, size in self._cards.of(r).items()},
            memory=sum(replica.memory for replica in line.replicas.values()) + (template.memory if template else 0),
            refused={"rate": 0, "quota": 0, **self.engine.rates.refused(name), "token": calls.barred},
            copies=self.shadows.seen(name) if self.shadows and name in self.shadows.endpoints else {},
        )

    def _whole(self, states: Counter[str], evictions: int, memory: Memory) -> Iterator[Metric]:
        info = GaugeMetricFamily("torpor_info", "What runs here.", labels=("version", "python"))
        info.add_metric((torpor.__version__, platform.python_version()), 1)
        yield info
        yield GaugeMetricFamily("torpor_uptime_seconds", "Since the router's start.", time.time() - self.started_at)
        endpoints = GaugeMetricFamily("torpor_endpoints", "Endpoints by state.", labels=("state",))
        for state in EndpointState:
            endpoints.add_metric((str(state),), states[str(state)])
        yield endpoints
        unmatched = CounterMetricFamily(
            "torpor_calls_unmatched", "Calls refused before it was known for which endpoint.", labels=("code",)
        )
        for code, count in sorted(self.tallies.unmatched.copy().items()):
            unmatched.add_metric((str(code),), count)
        yield unmatched
        yield histogram(
            "torpor_router_seconds", "Of a call in the router, parked time aside.", ((), self.tallies.router)
        )
        phases = [((name,), seconds) for name, seconds in sorted(self.meters.phases.copy().items())]
        yield histogram("torpor_cold_start_phase_seconds", "Of cold starts, by phase.", *phases, labels=("phase",))
        yield CounterMetricFamily("torpor_evictions", "Replicas and templates that went for lack of memory.", evictions)
        taken = GaugeMetricFamily("torpor_memory_bytes", "Memory (PSS) by what takes it.", labels=("of",))
        for of in ("replicas", "templates", "platform"):
            taken.add_metric((of,), getattr(memory, of))
        yield taken
        if memory.limit is not None:
            yield GaugeMetricFamily("torpor_memory_limit_bytes", "Of the memory of all together.", memory.limit)


def of_endpoints(rows: list[Row]) -> Iterator[Metric]:
    """What is told of each endpoint."""
    calls = CounterMetricFamily(
        "torpor_calls",
        "Calls by status; 499: the caller left before the answer.",
        labels=("endpoint", "code", "variant"),
    )
    replicas = GaugeMetricFamily("torpor_replicas", "Replicas by state.", labels=("endpoint", "state", "variant"))
    refused = CounterMetricFamily(
        "torpor_calls_refused",
        "Calls that came no further than the door, by what refused them: token, rate or quota.",
        labels=("endpoint", "by", "variant"),
    )
    copies = CounterMetricFamily(
        "torpor_shadow_copies", "Calls copied to a shadow, by what became of them.", labels=("endpoint", "outcome")
    )
    on_cards = GaugeMetricFamily(
        "torpor_gpu_memory_bytes", "Memory of replicas on graphics cards.", labels=("endpoint", "card", "variant")
    )
    for row in rows:
        for code, count in sorted(row.calls.codes.copy().items()):
            calls.add_metric((row.name, str(code), *row.variant), count)
        for state in RUNNING:
            replicas.add_metric((row.name, str(state), *row.variant), row.replicas[state])
        for by_what, count in row.refused.items():
            refused.add_metric((row.name, by_what, *row.variant), count)
        for outcome, count in row.copies.items():
            copies.add_metric((row.name, outcome), count)
        for card, size in row.on_cards.items():
            on_cards.add_metric((row.name, card, *row.variant), size)
    yield calls
    yield replicas
    yield refused
    yield copies
    yield on_cards
    yield from plain(rows)
    yield from timed(rows)


def plain(rows: list[Row]) -> Iterator[Metric]:
    """One number an endpoint."""
    by = ("endpoint", "variant")
    for name, text, count_of in COUNTS:
        counter = CounterMetricFamily(name, text, labels=by)
        for row in rows:
            counter.add_metric((row.name, *row.variant), count_of(row))
        yield counter
    for name, text, value_of in GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=by)
        for row in rows:
            gauge.add_metric((row.name, *row.variant), value_of(row))
        yield gauge


def timed(rows: list[Row]) -> Iterator[Metric]:
    by = ("endpoint", "variant")
    halves = [(row, ("false", row.calls.warm)) for row in rows] + [(row, ("true", row.calls.cold)) for row in rows]
    first = [((row.name, cold, *row.variant), seconds) for row, (cold, seconds) in halves]
    labels, text = ("endpoint", "cold", "variant"), "From a call to its answer's first byte."
    yield histogram("torpor_first_byte_seconds", text, *first, labels=labels)
    waits = [((row.name, *row.variant), row.calls.parked) for row in rows]
    yield histogram("torpor_queue_wait_seconds", "Of the calls that had to wait.", *waits, labels=by)
    starts = [((row.name, *row.variant), row.lives.cold) for row in rows]
    yield histogram("torpor_cold_start_seconds", "From a replica's start until it is ready.", *starts, labels=by)


COUNTS: tuple[tuple[str, str, Callable[[Row], int]], ...] = (
    ("torpor_answers_broken", "Answers that ended before their end.", lambda row: row.calls.broken),
    ("torpor_cold_starts", "Replicas that became ready, trials aside.", lambda row: row.lives.cold.count),
    ("torpor_starts", "Replicas started.", lambda row: row.lives.starts),
    ("torpor_starts_failed", "Starts that failed.", lambda row: row.lives.failed),
    ("torpor_replicas_died", "Replicas that ended by themselves.", lambda row: row.lives.died),
    ("torpor_replicas_evicted", "Replicas that went for lack of memory.", lambda row: row.lives.evicted),
)
GAUGES: tuple[tuple[str, str, Callable[[Row], int]], ...] = (
    ("torpor_in_flight", "Calls that replicas work on.", lambda row: row.in_flight),
    ("torpor_parked", "Calls that wait for a replica.", lambda row: row.parked),
    ("torpor_templates", "Loaded processes to fork replicas from.", lambda row: row.template),
    ("torpor_endpoint_memory_bytes", "Memory (PSS) of replicas and template.", lambda row: row.memory),
)


def histogram(
    name: str, text: str, *values: tuple[tuple[str, ...], Histogram], labels: tuple[str, ...] = ()
) -> HistogramMetricFamily:
    """Buckets as Prometheus has them: each counts what is below its bound, the last one all."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for label, counted in values:
        below, buckets = 0, []
        for bound, count in zip((*map(str, counted.bounds), "+Inf"), tuple(counted.counts), strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(label, buckets, counted.total)
    return family


class Families:
    """Metrics that are made already, as a registry wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def rendered(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(families))
    return generate_latest(registry)
