"""What an operator reads while endpoints wake and sleep: one line a transition, and a trace that goes through."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system import handmade
from tests.system.running import Running, running

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SERVICE = """
import bentoml

@bentoml.service
class Seen:
    @bentoml.api
    def trace(self, ctx: bentoml.Context) -> dict:
        return {name: ctx.request.headers.get(name) for name in ("traceparent", "tracestate")}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("transitions")
    config = folder / "torpor.toml"
    config.write_text('log_format = "json"\n')
    with running(folder, "--config", str(config)) as started:
        handmade.upload(started.url, "seen", handmade.bento("seen", SERVICE, "service:Seen"))
        handmade.deployed(started.url, "seen", "seen:1", sleep="deep")
        yield started


def transitions(data: Path, until: str) -> list[dict[str, Any]]:
    """The log's lines about the endpoint, once one tells of the event `until`."""
    for _ in range(6000):
        lines = [json.loads(line) for line in (data / "router.log").read_text().splitlines() if line]
        told = [line for line in lines if line.get("endpoint") == "seen"]
        if told and told[-1]["event"] == until:
            return told
        time.sleep(0.01)
    raise AssertionError(f"{until} was not told: {told}")


def test_each_transition_is_one_line_with_endpoint_replica_and_seconds(platform: Running) -> None:
    httpx.post(f"{platform.url}/torpor/v1/endpoints/seen/sleep?force=true")
    before = len(transitions(platform.data, "ended"))
    httpx.post(f"{platform.url}/torpor/v1/endpoints/seen/wake", timeout=60)
    httpx.post(f"{platform.url}/torpor/v1/endpoints/seen/sleep")
    lines = transitions(platform.data, "ended")[before:]
    assert [line["event"] for line in lines] == ["starting", "woke", "slept", "ended"]
    assert len({line["replica"] for line in lines}) == 1
    assert {(line["level"], line["logger"]) for line in lines} == {("info", "torpor.router")}
    assert lines[1]["message"].startswith(f"endpoint seen: replica {lines[1]['replica']} was ready after ")
    assert lines[3]["seconds"] > lines[1]["seconds"] > 0


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_a_trace_goes_to_the_replica_unchanged(platform: Running, state: str) -> None:
    if state == "cold":
        httpx.post(f"{platform.url}/torpor/v1/endpoints/seen/sleep?force=true")
    headers = {"traceparent": TRACE, "tracestate": "vendor=1,other=2"}
    seen = httpx.post(f"{platform.url}/endpoints/seen/trace", headers=headers, json={}, timeout=60)
    assert seen.headers["x-torpor-cold-start"] == ("true" if state == "cold" else "false")
    assert seen.json() == headers
