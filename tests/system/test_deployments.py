"""BentoCloud's deployments over the wire: what is told of them, and what is left of them after a kill."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.launch.orphans import born
from tests.system import handmade
from tests.system.running import Running, running
from tests.system.test_control_plane import OTHERS, PATIENCE, SERVICE, until
from torpor.cli.platform import down, up_detached

API = "/api/v2/deployments"


class Deployments:
    """The API of one platform, which asks for no token."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)

    def create(self, name: str, bento: str, **more: Any) -> httpx.Response:
        return self.http.post(API, json={"name": name, "bento": bento, "services": {}, **more})

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"{API}/{name}").raise_for_status().json()
        return found

    def events(self, name: str) -> str:
        return self.http.get(f"/torpor/v1/endpoints/{name}/events").text


def bentos(platform: Running) -> Deployments:
    for name, text, kind in (("hello", SERVICE, "Hello"), ("slow", OTHERS, "Slow")):
        handmade.upload(platform.url, name, handmade.bento(name, text, f"service:{kind}"))
    return Deployments(platform.url)


def test_a_deployment_is_created_called_updated_and_deleted(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        api = bentos(platform)
        made = api.create("one", "hello:1", envs=[{"name": "GREETING", "value": "good day"}], kept={"by": "nobody"})
        assert made.status_code == 200, made.text
        told = made.json()
        assert (told["status"], told["name"], len(told["urls"])) == ("running", "one", 1)
        target = told["latest_revision"]["targets"][0]
        assert target["config"]["kept"] == {"by": "nobody"}, "an unknown key comes back"
        [url] = told["urls"]
        assert httpx.post(f"{url}/hi", json={"name": "a"}, timeout=PATIENCE).status_code == 200
        assert api.create("one", "hello:1").status_code == 409
        sent = {"bento": "hello:1", "services": {}, "envs": []}
        assert api.http.put(f"{API}/one", json=sent).json()["urls"] == [url], "its address stays"
        again = api.http.put(f"{API}/one/void_update", json=sent).json()
        assert again["latest_revision"]["name"] == "one-3"
        assert [each["name"] for each in api.http.get(API).json()["items"]] == ["one"]
        assert api.http.delete(f"{API}/one").json()["name"] == "one"
        assert api.http.get(f"{API}/one").status_code == 404
        with pytest.raises(httpx.ConnectError):
            httpx.post(f"{url}/hi", json={"name": "a"})


def test_what_is_wrong_is_one_sentence_with_its_place(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        api = bentos(platform)
        services = {"hello": {"scaling": {"min_replicas": "many"}}}
        for status, named, body in (
            (404, "nowhere:1", {"name": "one", "bento": "nowhere:1"}),
            (400, "cannot be an endpoint's name", {"name": "One_", "bento": "hello:1"}),
            (400, "min_replicas", {"name": "one", "bento": "hello:1", "services": services}),
            (400, "services", {"name": "one", "bento": "hello:1", "services": 3}),
            (400, "2 to 1", {"name": "one", "bento": "hello:1", "services": {"Hello": scaled(2, 1)}}),
            (400, "bentoml deploy", {"name": "one", "bento": "hello:1", "dev": True}),
        ):
            refused = api.http.post(API, json={"services": {}, **body})
            assert refused.status_code == status, refused.text
            assert named in refused.text
        assert api.http.get(API).json()["total"] == 0


def scaled(least: int, most: int) -> dict[str, Any]:
    return {"scaling": {"min_replicas": least, "max_replicas": most}}


def test_one_to_one_replicas_are_taken_as_zero_to_one_and_two_as_said(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        api = bentos(platform)
        api.create("unsaid", "hello:1", services={"Hello": scaled(1, 1)})
        api.create("said", "hello:1", services={"Hello": scaled(1, 2)})
        settings = {
            name: api.http.get(f"/torpor/v1/endpoints/{name}").json()["settings"] for name in ("unsaid", "said")
        }
        assert (settings["unsaid"]["min_replicas"], settings["said"]["min_replicas"]) == (0, 1)
        until(lambda: "are taken as 0 to 1" in api.events("unsaid"))
        assert "are taken as 0 to 1" not in api.events("said")


def test_a_first_deploy_in_whose_midst_the_router_is_killed_has_never_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as platform:
        api = bentos(platform)
        threading.Thread(target=lambda: sent(api, "late", "slow:1"), daemon=True).start()
        until(lambda: api.http.get(f"{API}/late").status_code == 200 and api.get("late")["status"] == "deploying")
        os.kill(platform.pid, signal.SIGKILL)
        until(lambda: born(platform.pid) is None)
        monkeypatch.setenv("BENTOML_HOME", platform.env["BENTOML_HOME"])
        again = Deployments(up_detached(["--port", "0"], platform.data)["url"])
        try:
            assert again.http.get(f"{API}/late").status_code == 404
            assert again.create("late", "hello:1").status_code == 200, "the same name can be used"
            assert again.get("late")["status"] == "running"
        finally:
            down(platform.data)


def sent(api: Deployments, name: str, bento: str) -> None:
    with suppress(httpx.TransportError):
        Deployments(api.url).create(name, bento)


def test_a_failed_first_deploy_is_told_with_its_reason_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as platform:
        api = Deployments(platform.url)
        handmade.upload(platform.url, "broken", handmade.bento("broken", BROKEN, "service:Broken"))
        assert api.create("sad", "broken:1").json()["status"] == "failed"
        down(platform.data)
        monkeypatch.setenv("BENTOML_HOME", platform.env["BENTOML_HOME"])
        again = Deployments(up_detached(["--port", "0"], platform.data)["url"])
        try:
            assert again.get("sad")["status"] == "failed"
            assert again.http.delete(f"{API}/sad").status_code == 200
            assert again.http.get(f"{API}/sad").status_code == 404
        finally:
            down(platform.data)


BROKEN = """
import bentoml

@bentoml.service
class Broken:
    def __init__(self) -> None:
        raise RuntimeError("the model file is not there")

    @bentoml.api
    def hi(self, name: str) -> str:
        return name
"""
