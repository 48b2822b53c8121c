"""Canaries and shadows of a real platform with real services: shares, rollback by itself, and a shadow nobody feels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system import handmade
from tests.system.running import Running, running
from tests.system.test_control_plane import until

PATIENCE = 60.0  # seconds that one call may take
SERVICE = """
import asyncio
import os
import bentoml
from bentoml.exceptions import BentoMLException

@bentoml.service
class Said:
    @bentoml.api
    async def version(self) -> str:
        {body}
"""
BODIES = {
    "one": 'return "one"',
    "two": 'return "two"',
    "failing": 'raise BentoMLException("broken on purpose")',
    "slow": """while not os.path.exists(os.environ["GATE"]):
            await asyncio.sleep(0.01)
        return "one\"""",
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("canaries")) as started:
        for name, body in BODIES.items():
            tar = handmade.bento(name, SERVICE.format(body=body), "service:Said")
            handmade.upload(started.url, name, tar)
        yield started


def begun(platform: Running, endpoint: str, bento: str, env: dict[str, str] | None = None, **rule: Any) -> None:
    """An endpoint of the first service, with a canary of another one. `env`: the canary's."""
    handmade.deployed(platform.url, endpoint, "one:1")
    body = {"name": endpoint, "bento": f"{bento}:1", "variant": "canary", "rule": rule, "env": env or {}}
    told = list(handmade.events(platform.url, body))
    assert told[-1]["event"] == "deployed", told


def rule_of(platform: Running, endpoint: str) -> dict[str, Any]:
    view = httpx.get(f"{platform.url}/torpor/v1/endpoints/{endpoint}").json()
    (variant,) = view["variants"]
    return dict(variant["rule"])


def happened(platform: Running, endpoint: str, kind: str) -> list[str]:
    found = httpx.get(f"{platform.url}/torpor/v1/endpoints/{endpoint}/events").json()["events"]
    return [each["text"] for each in found if each["kind"] == kind]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE) as client:
        yield client


def test_a_random_share_of_the_calls_goes_to_the_canary(platform: Running, http: httpx.Client) -> None:
    begun(platform, "shared", "two", kind="random", weight=30)
    calls = 400
    told = Counter(http.post(f"{platform.url}/endpoints/shared/version", json={}).text for _ in range(calls))
    assert set(told) == {"one", "two"}
    spread = (calls * 0.3 * 0.7) ** 0.5
    assert abs(told["two"] - calls * 0.3) < 5 * spread  # beyond it once in 1.7 million runs


@pytest.mark.parametrize("kind", ["header", "query"])
def test_a_value_of_the_header_or_the_query_goes_to_one_version_always(
    platform: Running, http: httpx.Client, kind: str
) -> None:
    begun(platform, f"by-{kind}", "two", kind=kind, by="user", weight=50)
    url = f"{platform.url}/endpoints/by-{kind}/version"

    def told(user: int) -> str:
        named: dict[str, Any] = {"headers": {"User": str(user)}} if kind == "header" else {"params": {"user": user}}
        return http.post(url, json={}, **named).text

    answers = [{told(user) for _ in range(3)} for user in range(40)]
    assert all(len(each) == 1 for each in answers)
    assert set().union(*answers) == {"one", "two"}
    assert {http.post(url, json={}).text for _ in range(10)} == {"one"}, "who names none gets the live one"


def test_a_failing_canary_is_rolled_back_by_itself_while_the_live_one_answers(
    platform: Running, http: httpx.Client
) -> None:
    watch = {"window": 60, "least": 20}
    begun(platform, "guarded", "failing", kind="header", by="X-User", weight=50, watch=watch)
    assert rule_of(platform, "guarded")["watch"] == watch
    url = f"{platform.url}/endpoints/guarded/version"
    ends = time.monotonic() + PATIENCE
    live: set[tuple[int, str]] = set()
    canary: set[int] = set()
    while rule_of(platform, "guarded")["weight"]:
        assert time.monotonic() < ends, "it should have been rolled back"
        for user in range(20):
            canary.add(http.post(url, json={}, headers={"X-User": str(user)}).status_code)
            answer = http.post(url, json={})
            live.add((answer.status_code, answer.text))
    assert canary == {200, 500}
    assert live == {(200, "one")}
    assert rule_of(platform, "guarded") == {"kind": "header", "by": "X-User", "weight": 0, "watch": watch}
    assert {http.post(url, json={}, headers={"X-User": str(user)}).text for user in range(20)} == {"one"}
    until(lambda: happened(platform, "guarded", "canary_rolled_back") != [])
    (text,) = happened(platform, "guarded", "canary_rolled_back")
    assert text.startswith("canary, revision 2, gets no calls any more\nerrors in 100% of ")
    assert http.post(f"{platform.url}/endpoints/guarded~canary/version", json={}).status_code == 500, "for a look"


def test_a_healthy_canary_is_promoted_by_itself(platform: Running, http: httpx.Client) -> None:
    watch = {"window": 3, "least": 5, "latency": 1000, "promote": True}
    begun(platform, "promoted", "two", kind="random", weight=50, watch=watch)
    ends = time.monotonic() + PATIENCE
    while httpx.get(f"{platform.url}/torpor/v1/endpoints/promoted").json()["variants"]:
        assert time.monotonic() < ends, "it should have been promoted"
        for _ in range(20):
            assert http.post(f"{platform.url}/endpoints/promoted/version", json={}).status_code == 200
    assert {http.post(f"{platform.url}/endpoints/promoted/version", json={}).text for _ in range(10)} == {"two"}
    until(lambda: happened(platform, "promoted", "promoted") != [])
    assert happened(platform, "promoted", "promoted")[0].startswith("revision 2 of canary is live\n")


def test_a_shadow_that_differs_is_told_and_callers_get_the_live_ones_answers(
    platform: Running, http: httpx.Client
) -> None:
    begun(platform, "shadowed", "two", kind="shadow", weight=100)
    for number in range(5):
        headers = {"X-Request-Id": f"call-{number}"}
        answer = http.post(f"{platform.url}/endpoints/shadowed/version", json={}, headers=headers)
        assert (answer.status_code, answer.text) == (200, "one")
    until(lambda: len(happened(platform, "shadowed", "differs")) == 5)
    assert sorted(happened(platform, "shadowed", "differs")) == [
        f"call call-{number}: the live revision and canary, revision 2, answered 200 and 200\n"
        "they differ first at byte 0 of the body"
        for number in range(5)
    ]


def test_callers_do_not_wait_for_a_slow_shadow(platform: Running, http: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    begun(platform, "unhurried", "slow", {"GATE": str(gate)}, kind="shadow", weight=100)
    url = f"{platform.url}/endpoints/unhurried/version"
    assert [http.post(url, json={}).text for _ in range(10)] == ["one"] * 10

    def counted(outcome: str) -> float:
        page = httpx.get(f"{platform.url}/metrics").text
        start = f'torpor_shadow_copies_total{{endpoint="unhurried",outcome="{outcome}"}} '
        return float(next(line for line in page.splitlines() if line.startswith(start)).removeprefix(start))

    assert (counted("copied"), counted("same")) == (10, 0)
    gate.touch()
    until(lambda: counted("same") == 10)


def test_what_is_counted_of_a_canary_has_its_name(platform: Running, http: httpx.Client) -> None:
    begun(platform, "labelled", "two", kind="random", weight=100)
    assert http.post(f"{platform.url}/endpoints/labelled/version", json={}).text == "two"
    page = httpx.get(f"{platform.url}/metrics").text
    assert 'torpor_calls_total{code="200",endpoint="labelled",variant="canary"} 1.0' in page
    assert 'torpor_calls_total{code="200",endpoint="labelled"}' not in page
