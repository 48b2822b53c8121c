"""Replicas' lives as they are counted, and the page that Prometheus reads."""

from __future__ import annotations

import os

import anyio
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from router.api.metrics import Metrics
from router.core.catalog import Catalog, Registered
from router.core.effects import Note
from router.core.events import Held, Measured, Wanted
from router.core.settings import Settings
from router.proxy.tally import Tallies
from router.shell.engine import Engine
from router.shell.meters import OTHER, PHASES_MAX, Meters
from router.shell.plan import Plan
from tests.shell.fakes.launcher import FakeLauncher

MIB = 1 << 20


class Own:
    """A launcher's processes of its own: none but the router is there."""

    def pids(self) -> dict[str, tuple[int, ...]]:
        return {}

    def own_pids(self) -> list[int]:
        return []


def page_of(*names: str, cards: dict[str, Held] | None = None) -> tuple[Metrics, Engine]:
    launcher, catalog = FakeLauncher(), Catalog()

    async def planned(endpoint: str, revision: int) -> Plan:
        raise AssertionError("a scrape starts nothing")

    engine = Engine(catalog, launcher, "{}-{}".format, lambda: 0.0, lambda note: None, planned, cards=cards)
    for name in names:
        catalog.put(Registered(name, 1, "b:1", {}, Settings(), 0.0))
        engine.live(name, 1, Settings())
    return Metrics(engine, Tallies(lambda: 0.0), Meters(), Own(), lambda pid: 7 * MIB, 0.0), engine


def scraped(metrics: Metrics) -> dict[str, Metric]:
    page: list[bytes] = []

    async def scrape() -> None:
        page.append(await metrics.all())

    anyio.run(scrape)
    return read(page[0])


def read(page: bytes) -> dict[str, Metric]:
    """As Prometheus' own parser reads it."""
    families = list(text_string_to_metric_families(page.decode()))
    assert len({family.name for family in families}) == len(families), "a family comes twice"
    assert all(family.documentation for family in families)
    return {family.name: family for family in families}


def value(families: dict[str, Metric], family: str, sample: str = "", **labels: str) -> float:
    [found] = [
        each.value
        for each in families[family].samples
        if each.name == (sample or family) and each.labels == labels
    ]  # fmt: skip
    return found


def test_what_replicas_have_on_graphics_cards_is_told_by_card() -> None:
    metrics, engine = page_of("e", cards={"GPU-a": Held(1 * MIB), "GPU-b": Held(2 * MIB)})
    engine.live("e", 1, Settings(gpu=2, launcher="container"))
    engine.tell(Wanted("e", "call"))
    metrics.meters.noted(Note("e", "starting", "a replica starts"))
    engine.tell(Measured({}, 0, {"GPU-a": Held(5 * MIB), "GPU-b": Held(2 * MIB)}))
    taken = scraped(metrics)["torpor_gpu_memory_bytes"]
    seen = {(each.labels["endpoint"], each.labels["card"]): each.value for each in taken.samples}
    assert seen == {("e", "GPU-a"): 4 * MIB, ("e", "GPU-b"): 0}


def test_lives_are_counted_by_what_became_of_them() -> None:
    meters = Meters()
    for kind in ("starting", "starting", "woke", "start_failed", "died", "evicted", "slept", "kept"):
        meters.noted(Note("e", kind, "text", "e-1", 2.0, {"load": 0.2, "fork": 0.01}))
    lives = meters.endpoints["e"]
    assert (lives.starts, lives.cold.count, lives.failed, lives.died, lives.evicted) == (2, 1, 1, 1, 1)
    assert {phase: seconds.total for phase, seconds in meters.phases.items()} == {"load": 0.2, "fork": 0.01}
    meters.forget("e")
    meters.forget("e")
    assert meters.endpoints == {}


def test_a_replica_that_invents_phases_does_not_fill_the_memory() -> None:
    meters = Meters()
    for number in range(1000):
        meters.noted(Note("e", "woke", "text", "e-1", 1.0, {f"phase-{number}": 1.0}))
    assert len(meters.phases) == PHASES_MAX + 1
    assert meters.phases[OTHER].count == 1000 - PHASES_MAX


def test_the_page_of_a_platform_that_did_nothing_yet_holds_only_what_is_there() -> None:
    metrics, _ = page_of("a", "b")
    families = scraped(metrics)
    assert value(families, "torpor_endpoints", state="asleep") == 2
    assert families["torpor_calls"].samples == []
    assert value(families, "torpor_memory_bytes", of="platform") == 7 * MIB
    assert value(families, "process_open_fds") > 0
    assert {"torpor_info", "torpor_uptime_seconds", "torpor_evictions"} <= families.keys()


def test_histograms_are_cumulative_and_end_with_their_count() -> None:
    metrics, _ = page_of("e")
    tally = metrics.tallies.of("e")
    for seconds in (0.002, 0.002, 0.2, 1000.0):
        tally.warm.add(seconds)
    samples = scraped(metrics)["torpor_first_byte_seconds"].samples
    warm = [each for each in samples if each.labels["cold"] == "false"]
    buckets = [(each.labels["le"], each.value) for each in warm if each.name.endswith("_bucket")]
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert dict(buckets)["0.0025"] == 2
    assert buckets[-1] == ("+Inf", 4)
    assert [each.value for each in warm if each.name.endswith("_count")] == [4]
    assert [each.value for each in warm if each.name.endswith("_sum")] == [pytest.approx(1000.204)]


def test_only_endpoints_of_the_catalogue_have_rows() -> None:
    metrics, _ = page_of("known")
    for name in ("known", "gone"):
        metrics.tallies.of(name).codes[200] += 1
        metrics.meters.noted(Note(name, "starting", "text"))
    metrics.tallies.unmatched[404] += 5
    families = scraped(metrics)
    assert [each.labels for each in families["torpor_calls"].samples] == [{"endpoint": "known", "code": "200"}]
    assert [each.labels["endpoint"] for each in families["torpor_starts"].samples] == ["known"]
    assert value(families, "torpor_calls_unmatched", "torpor_calls_unmatched_total", code="404") == 5


def test_the_page_of_one_endpoint_is_there_before_its_first_call() -> None:
    metrics, engine = page_of("e", "f")
    families = read(metrics.one("e"))
    assert value(families, "torpor_in_flight", endpoint="e") == 0
    assert value(families, "torpor_replicas", endpoint="e", state="ready") == 0
    assert {each.labels["endpoint"] for family in families.values() for each in family.samples} == {"e"}
    assert engine.schedule.replicas == {}, "a scrape wakes nothing"


def test_thousands_of_sleeping_endpoints_make_no_longer_page() -> None:
    few, _ = page_of("e-1")
    many, _ = page_of(*(f"e-{number}" for number in range(3000)))
    assert value(scraped(many), "torpor_endpoints", state="asleep") == 3000
    samples = [sum(len(family.samples) for family in scraped(each).values()) for each in (few, many)]
    assert samples[0] == samples[1]


def test_the_router_measures_itself() -> None:
    metrics, _ = page_of()
    measured: list[int] = []
    own = Metrics(metrics.engine, metrics.tallies, metrics.meters, Own(), lambda pid: measured.append(pid), 0.0)
    assert value(scraped(own), "torpor_memory_bytes", of="platform") == 0
    assert measured == [os.getpid()]
