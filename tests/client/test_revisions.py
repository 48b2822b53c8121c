"""The clients and revisions: going back, variants, promotion, termination, and what a mock has of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import Running
from torpor import AsyncClient, Client, MockTransport
from torpor.errors import BadRequest, Conflict, EndpointNotFound, NotFound, StartFailed
from torpor.wire import RuleView

SERVICE = """
import os
import bentoml

@bentoml.service
class Said:
    def __init__(self) -> None:
        self.said = os.environ["VERSION"]
        assert self.said != "broken", "told not to start"

    @bentoml.api
    def version(self) -> str:
        return self.said
"""
ALL = RuleView(kind="random", by="", weight=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


@pytest.fixture
def client(platform: Running) -> Iterator[Client]:
    with Client(platform.url, answer_within=60) as each:
        yield each
        for view in each.list():
            if view["name"] == "said":
                each.delete("said")


def test_revisions_go_back_and_forth_and_are_told(client: Client, folder: Path) -> None:
    for version in ("one", "two"):
        client.deploy(folder, "said", env={"VERSION": version}, access=None, secrets=[])
    said = client.endpoint("said")
    told: list[str] = []
    assert client.rollback("said", tell=lambda phase, detail: told.append(phase))["revision"] == 1
    assert (said.version(), told) == ("one", ["checked", "preparing environment", "starting"])
    assert client.rollback("said", 2)["revision"] == 2
    assert said.version() == "two"
    assert [(each["number"], each["state"]) for each in client.history("said")] == [(2, ["live"]), (1, [])]
    kinds = [event["kind"] for event in client.events("said")]
    assert kinds == ["deployed", "deployed", "rolled_back", "rolled_back"]
    assert [event["kind"] for event in client.events("said", limit=1)] == ["rolled_back"]
    with pytest.raises(Conflict, match="revision 2 of 'said' is live already"):
        client.rollback("said", 2)
    with pytest.raises(NotFound, match="no revision 9"):
        client.rollback("said", 9)


def test_a_variant_is_made_varied_promoted_and_ended(client: Client, folder: Path) -> None:
    client.deploy(folder, "said", env={"VERSION": "one"})
    with pytest.raises(StartFailed, match="told not to start"):
        client.deploy(folder, "said", env={"VERSION": "broken"}, variant="canary", rule=ALL)
    assert client.get("said")["variants"] == []
    view = client.deploy(folder, "said", env={"VERSION": "two"}, variant="canary", rule=ALL)
    (variant,) = view["variants"]
    assert (view["revision"], variant["revision"], variant["rule"]) == (1, 2, ALL)
    said = client.endpoint("said")
    assert {said.version() for _ in range(5)} == {"two"}
    assert client.get("said")["variants"][0]["calls"] == 5
    client.vary("said", "canary", RuleView(kind="random", by="", weight=0))
    assert {said.version() for _ in range(5)} == {"one"}
    with pytest.raises(BadRequest, match="the weight 101 of 'canary' is no percent"):
        client.vary("said", "canary", RuleView(kind="random", by="", weight=101))
    assert client.promote("said")["revision"] == 2
    assert said.version() == "two"
    client.deploy(folder, "said", env={"VERSION": "three"}, variant="staging")
    assert client.endpoint("said~staging").version() == "three"
    assert client.vary("said", "staging", None)["variants"] == []
    with pytest.raises(EndpointNotFound):
        client.endpoint("said~staging").version()
    with pytest.raises(NotFound, match="'said' has no variant 'staging'"):
        client.promote("said", "staging")


def test_the_async_client_terminates_and_starts(platform: Running, folder: Path) -> None:
    async def all_of_it() -> None:
        async with AsyncClient(platform.url, answer_within=60) as client:
            await client.deploy(folder, "said", env={"VERSION": "one"})
            assert (await client.terminate("said"))["terminated"] is True
            with pytest.raises(EndpointNotFound, match="'said' is terminated"):
                await client.endpoint("said").version()
            assert [view["state"] for view in await client.list() if view["name"] == "said"] == ["terminated"]
            assert (await client.history("said"))[0]["state"] == ["terminated"]
            assert (await client.start("said"))["terminated"] is False
            assert await client.endpoint("said").version() == "one"
            await client.delete("said")

    asyncio.run(all_of_it())


def test_a_mocks_endpoints_are_terminated_and_started_and_have_one_revision() -> None:
    with Client(transport=MockTransport({"said": {"version": lambda: "one"}})) as client:
        assert client.terminate("said")["state"] == "terminated"
        with pytest.raises(EndpointNotFound, match="torpor start said"):
            client.endpoint("said").version()
        with pytest.raises(EndpointNotFound):
            client.wake("said")
        assert [each["state"] for each in client.history("said")] == [["terminated"]]
        assert client.start("said")["state"] == "asleep"
        assert client.endpoint("said").version() == "one"
        assert [event["kind"] for event in client.events("said")] == ["deployed"]
        with pytest.raises(NotFound, match="is not mocked"):
            client.rollback("said")
        with pytest.raises(EndpointNotFound):
            client.history("nosuch")
