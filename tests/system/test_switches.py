"""Switches between revisions under load: no call is lost, each is one version's, and a kill leaves one or the other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.launch.orphans import born
from tests.system import handmade
from tests.system.running import Running, running
from tests.system.test_control_plane import until
from torpor import AsyncClient
from torpor.cli.platform import up_detached
from torpor.errors import StartFailed

RATE = 50  # calls a second
PATIENCE = 60.0  # seconds that one call may take
SERVICE = """
import bentoml

@bentoml.service
class Said:
    @bentoml.api
    async def version(self) -> str:
        return "{version}"
"""
BROKEN = """
import os
import bentoml

@bentoml.service
class Said:
    def __init__(self) -> None:
        if os.path.exists(os.environ["BREAK"]):
            raise RuntimeError("the weights are gone")

    @bentoml.api
    async def version(self) -> str:
        return "fragile"
"""


@dataclass
class Called:
    """One call: when it began and ended, and what answered."""

    began: float
    ended: float
    status: int
    text: str


@dataclass
class Load:
    """Calls at a fixed rate, whether those before have been answered or not."""

    url: str
    calls: list[Called] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        async with httpx.AsyncClient(timeout=PATIENCE, limits=limits) as http, asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while not self.stopped.is_set():
                tasks.create_task(self._call(http))
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _call(self, http: httpx.AsyncClient) -> None:
        began = time.monotonic()
        try:
            answer = await http.post(f"{self.url}/version", json={})
            self.calls.append(Called(began, time.monotonic(), answer.status_code, answer.text))
        except httpx.HTTPError as error:
            self.calls.append(Called(began, time.monotonic(), 0, repr(error)))


@dataclass(frozen=True)
class Switch:
    """A change of the live revision: what answered before, what after, when it began and when it had returned."""

    before: str
    after: str
    began: float
    returned: float


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("switches")) as started:
        for version in ("one", "two"):
            handmade.upload(
                started.url, version, handmade.bento(version, SERVICE.format(version=version), "service:Said")
            )
        handmade.upload(started.url, "fragile", handmade.bento("fragile", BROKEN, "service:Said"))
        yield started


def test_ten_switches_under_fifty_calls_a_second_lose_none_and_mix_nothing(platform: Running) -> None:
    async def main() -> None:
        async with AsyncClient(platform.url) as client:
            await deployed(client, "switched", "one:1")
            load = Load(f"{platform.url}/endpoints/switched")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run())
                try:
                    switches = await ten_switches(client)
                finally:
                    load.stopped.set()
        judge(load.calls, switches)

    asyncio.run(main())


async def ten_switches(client: AsyncClient) -> list[Switch]:
    """Eight deploys of two services in turn, a rollback, and a promotion."""
    switches: list[Switch] = []

    async def switch(after: str, change: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(0.3)  # a while in which one version answers
        began = time.monotonic()
        await change()
        switches.append(Switch(switches[-1].after if switches else "one", after, began, time.monotonic()))

    for version in ("two", "one") * 4:
        await switch(version, lambda tag=f"{version}:1": deployed(client, "switched", tag))  # type: ignore[misc]
    await switch("two", lambda: client.rollback("switched"))
    await deployed(client, "switched", "one:1", variant="staging")
    await switch("one", lambda: client.promote("switched", "staging"))
    await asyncio.sleep(0.3)
    return switches


def judge(calls: list[Called], switches: list[Switch]) -> None:
    assert [each for each in calls if each.status != 200] == []
    assert len(switches) == 10
    took = switches[-1].returned - switches[0].began
    assert len(calls) > took * RATE * 0.5, "the load was there all the time"
    for switch, following in zip(switches, [*switches[1:], None], strict=True):
        end = following.began if following is not None else float("inf")
        meanwhile = {each.text for each in calls if switch.began <= each.began < switch.returned}
        afterwards = [each.text for each in calls if switch.returned <= each.began and each.ended < end]
        assert meanwhile <= {switch.before, switch.after}
        assert afterwards, "calls were made between the switches"
        assert set(afterwards) == {switch.after}


def test_a_rollback_to_what_cannot_start_any_more_leaves_the_live_one_serving(
    platform: Running, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"

    async def main() -> None:
        async with AsyncClient(platform.url) as client:
            await deployed(client, "kept", "fragile:1", env={"BREAK": str(flag)})
            await deployed(client, "kept", "two:1")
            flag.touch()
            load = Load(f"{platform.url}/endpoints/kept")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run())
                try:
                    with pytest.raises(StartFailed, match="the weights are gone"):
                        await client.rollback("kept", 1)
                finally:
                    load.stopped.set()
            view = await client.get("kept")
            assert (view["revision"], view["last_error"]) == (2, None)
            assert {(each.status, each.text) for each in load.calls} == {(200, "two")}
            event = (await client.events("kept"))[-1]
            assert event["kind"] == "rollback_failed"
            assert event["text"].endswith("\nrevision 2 goes on serving")
            assert "the weights are gone" in event["text"]

    asyncio.run(main())


@pytest.mark.parametrize("change", ["deploy", "rollback"])
@pytest.mark.parametrize("moment", ["checked", "starting", "started"])
def test_a_router_killed_in_mid_switch_comes_back_with_the_one_before_or_the_one_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, moment: str
) -> None:
    with running(tmp_path) as platform:
        for version in ("one", "two"):
            handmade.upload(
                platform.url, version, handmade.bento(version, SERVICE.format(version=version), "service:Said")
            )
        handmade.deployed(platform.url, "e", "one:1")
        if change == "rollback":
            handmade.deployed(platform.url, "e", "two:1")
        killed_at(platform, change, moment)
        monkeypatch.setenv("BENTOML_HOME", platform.env["BENTOML_HOME"])
        again = up_detached(["--port", "0"], platform.data)
        view = httpx.get(f"{again['url']}/torpor/v1/endpoints/e").json()
        live, text = view["revision"], called(again["url"])
        before, after = {"deploy": ((1, "one"), (2, "two")), "rollback": ((2, "two"), (1, "one"))}[change]
        assert (live, text) in (before, after)
        shown = httpx.get(f"{again['url']}/torpor/v1/endpoints/e/revisions").json()["revisions"]
        assert [each["number"] for each in shown if each["state"] == ["live"]] == [live]
        handmade.deployed(again["url"], "e", "two:1")
        assert called(again["url"]) == "two", "the next deploy is as any other"


def killed_at(platform: Running, change: str, moment: str) -> None:
    """Kills the router when a switch has come to a phase, or (`started`) a little after its replica was begun."""
    path, body = ("", {"name": "e", "bento": "two:1"}) if change == "deploy" else ("/e/rollback", {"revision": None})
    with httpx.stream("POST", f"{platform.url}/torpor/v1/endpoints{path}", json=body, timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if json.loads(line).get("phase") == {"started": "starting"}.get(moment, moment):
                break
        if moment == "started":
            time.sleep(0.15)  # about as long as a start takes: the kill comes near the write, before it or after
        os.kill(platform.pid, signal.SIGKILL)
    until(lambda: born(platform.pid) is None)


def called(url: str) -> str:
    answer = httpx.post(f"{url}/endpoints/e/version", json={}, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.text


async def deployed(client: AsyncClient, name: str, tag: str, **more: Any) -> None:
    """As `client.deploy` does it with a bento that is there already."""
    await client._changed("/endpoints", {"name": name, "bento": tag, **more}, lambda phase, detail: None)
