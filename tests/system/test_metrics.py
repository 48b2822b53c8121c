"""`GET /metrics` of a running platform: what was called is counted, and a scrape changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.system import handmade
from tests.system.running import Running, free_port, running

SERVICE = """
import os
import bentoml

@bentoml.service
class Counted:
    @bentoml.api
    def hi(self, name: str) -> str:
        if name == "die":
            os._exit(3)
        return name
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("metrics")) as started:
        handmade.upload(started.url, "counted", handmade.bento("counted", SERVICE, "service:Counted"))
        handmade.deployed(started.url, "counted", "counted:1", port=free_port())
        yield started


@pytest.fixture
def http(platform: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.url, timeout=60) as client:
        yield client


def scraped(http: httpx.Client, path: str = "/metrics") -> dict[str, Metric]:
    answer = http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [s.value for family in families.values() for s in family.samples if s.name == sample and s.labels == labels]
    return sum(found)


def counts(families: dict[str, Metric], *names: str) -> list[float]:
    return [value(families, name, endpoint="counted") for name in names]


def test_what_was_called_is_counted_and_a_scrape_changes_nothing(http: httpx.Client) -> None:
    http.post("/torpor/v1/endpoints/counted/sleep?force=true")
    before = scraped(http)
    assert http.post("/endpoints/counted/hi", json={"name": "a"}).headers["x-torpor-cold-start"] == "true"
    assert http.post("/endpoints/counted/hi", json={"name": "b"}).status_code == 200
    assert http.post("/endpoints/counted/hi", json={}).status_code == 400
    assert http.get("/endpoints/nobody/hi").status_code == 404
    after = scraped(http)

    def more(sample: str, **labels: str) -> float:
        return value(after, sample, **labels) - value(before, sample, **labels)

    assert more("torpor_calls_total", endpoint="counted", code="200") == 2
    assert more("torpor_calls_total", endpoint="counted", code="400") == 1
    assert more("torpor_calls_unmatched_total", code="404") == 1
    assert more("torpor_cold_starts_total", endpoint="counted") == 1
    assert more("torpor_cold_start_seconds_count", endpoint="counted") == 1
    assert more("torpor_first_byte_seconds_count", endpoint="counted", cold="true") == 1
    assert more("torpor_first_byte_seconds_count", endpoint="counted", cold="false") == 2
    assert more("torpor_queue_wait_seconds_count", endpoint="counted") == 1
    assert more("torpor_router_seconds_count") == 3
    assert more("torpor_cold_start_phase_seconds_count", phase="fork") == 1
    assert value(after, "torpor_replicas", endpoint="counted", state="ready") == 1
    assert value(after, "torpor_memory_bytes", of="platform") > 1 << 20
    assert value(after, "torpor_memory_limit_bytes") > 1 << 20
    assert "nobody" not in http.get("/metrics").text


def test_a_scrape_neither_wakes_nor_counts_as_a_call(http: httpx.Client) -> None:
    http.post("/torpor/v1/endpoints/counted/sleep?force=true")
    before = http.get("/torpor/v1/endpoints/counted").json()
    for _ in range(3):
        families = scraped(http)
        own = scraped(http, "/endpoints/counted/metrics")
    after = http.get("/torpor/v1/endpoints/counted").json()
    assert (after["state"], after["calls"], after["last_call_at"]) == (
        "asleep",
        before["calls"],
        before["last_call_at"],
    )
    assert value(families, "torpor_endpoints", state="asleep") == 1
    assert value(families, "torpor_replicas", endpoint="counted", state="ready") == 0
    names = ("torpor_cold_starts_total", "torpor_starts_total", "torpor_in_flight")
    assert counts(own, *names) == counts(families, *names)
    assert http.post("/endpoints/counted/metrics").status_code == 405


def test_a_death_is_counted(http: httpx.Client) -> None:
    died = value(scraped(http), "torpor_replicas_died_total", endpoint="counted")
    assert http.post("/endpoints/counted/hi", json={"name": "die"}).status_code == 502
    give_up = time.monotonic() + 20
    while value(families := scraped(http), "torpor_replicas_died_total", endpoint="counted") == died:
        assert time.monotonic() < give_up, "the caller is told at once, the exit a moment later"
    assert value(families, "torpor_replicas_died_total", endpoint="counted") == died + 1
    assert value(families, "torpor_calls_total", endpoint="counted", code="502") == 1


def test_an_endpoint_that_was_removed_has_no_rows_and_one_of_its_name_begins_at_zero(http: httpx.Client) -> None:
    handmade.deployed(str(http.base_url), "brief", "counted:1")
    assert http.post("/endpoints/brief/hi", json={"name": "a"}).status_code == 200
    assert value(scraped(http), "torpor_calls_total", endpoint="brief", code="200") == 1
    http.delete("/torpor/v1/endpoints/brief")
    assert 'endpoint="brief"' not in http.get("/metrics").text
    handmade.deployed(str(http.base_url), "brief", "counted:1")
    families = scraped(http)
    assert value(families, "torpor_starts_total", endpoint="brief") == 1
    assert value(families, "torpor_calls_total", endpoint="brief", code="200") == 0
    http.delete("/torpor/v1/endpoints/brief")
