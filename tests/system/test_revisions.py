"""The control plane's routes about revisions over real HTTP: what they answer, refuse, and write down."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.launch.orphans import born
from tests.system import handmade
from tests.system.running import Running, running
from tests.system.test_control_plane import API, OTHERS, PATIENCE, SERVICE, check_error, until
from torpor.cli.platform import up_detached
from torpor.wire import EventView, RevisionView, VariantView

ONE = f"{API}/endpoints/hello"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("revisions")) as started:
        handmade.upload(started.url, "hello", handmade.bento("hello", SERVICE))
        handmade.upload(started.url, "broken", handmade.bento("broken", OTHERS, "service:Broken"))
        yield started


@pytest.fixture
def http(platform: Running) -> Iterator[httpx.Client]:
    """With `hello`, whose live revision is 2."""
    with httpx.Client(base_url=platform.url, timeout=PATIENCE) as client:
        handmade.deployed(platform.url, "hello", "hello:1", idle_after=9)
        told(client, "", {"name": "hello", "bento": "hello:1", "env": {"KEY": "hidden"}, "access": None, "secrets": []})
        yield client
        client.delete(ONE)


def told(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a change, of one that is accepted."""
    answer = http.post(f"{API}/endpoints{path}", json=body)
    assert answer.headers["content-type"] == "application/x-ndjson", answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_revisions_and_events_have_everything_that_the_contract_names(http: httpx.Client) -> None:
    newest, oldest = http.get(f"{ONE}/revisions").json()["revisions"]
    assert set(newest) == set(RevisionView.__annotations__)
    assert (newest["number"], newest["state"], newest["env"], newest["settings"]) == (2, ["live"], ["KEY"], {})
    assert (oldest["number"], oldest["state"], oldest["env"], oldest["settings"]) == (1, [], [], {"idle_after": 9.0})
    events = http.get(f"{ONE}/events").json()["events"]
    assert set(events[0]) == set(EventView.__annotations__)
    assert [(event["kind"], event["text"]) for event in events] == [
        ("deployed", "revision 1 is live"),
        ("deployed", "revision 2 is live"),
    ]
    assert "hidden" not in http.get(f"{ONE}/revisions").text


def test_a_change_tells_its_phases_and_ends_with_the_endpoint(http: httpx.Client) -> None:
    *phases, last = told(http, "/hello/rollback", {"revision": None})
    assert [event["phase"] for event in phases] == ["checked", "preparing environment", "starting"]
    assert (last["event"], last["endpoint"]["revision"]) == ("deployed", 1)
    rule = {"kind": "query", "by": "user", "weight": 100}
    last = told(http, "", {"name": "hello", "bento": "hello:1", "variant": "canary", "rule": rule})[-1]
    (variant,) = last["endpoint"]["variants"]
    assert set(variant) == set(VariantView.__annotations__)
    assert (variant["name"], variant["revision"], variant["rule"]) == ("canary", 3, rule)
    assert http.post("/endpoints/hello/hi?user=ann", json={"name": "a"}).status_code == 200
    assert http.get(ONE).json()["variants"][0]["calls"] == 1
    assert http.put(f"{ONE}/variants/canary", json={"kind": "random", "weight": 3}).json()["variants"][0]["rule"] == {
        "kind": "random",
        "by": "",
        "weight": 3,
    }
    assert told(http, "/hello/promote", {"variant": "canary"})[-1]["endpoint"]["revision"] == 3
    kinds = [event["kind"] for event in http.get(f"{ONE}/events?limit=4").json()["events"]]
    assert kinds == ["rolled_back", "deployed", "varied", "promoted"]


def test_a_failed_change_is_written_down_with_its_reason_and_changes_nothing(http: httpx.Client) -> None:
    failed = told(http, "", {"name": "hello", "bento": "broken:1"})[-1]
    assert (failed["event"], failed["code"]) == ("error", "start_failed")
    assert http.get(ONE).json()["revision"] == 2
    (event,) = http.get(f"{ONE}/events?limit=1").json()["events"]
    assert event["kind"] == "deploy_failed"
    assert event["text"].startswith("a replica of 'hello' could not start")
    assert event["text"].endswith("\nrevision 2 goes on serving")


def test_the_tokens_name_is_told_of_what_was_done_with_it(tmp_path: Path) -> None:
    with running(tmp_path) as platform, httpx.Client(base_url=platform.url, timeout=PATIENCE) as http:
        handmade.upload(platform.url, "hello", handmade.bento("hello", SERVICE))
        made = http.post(f"{API}/tokens", json={"name": "ann", "scopes": ["admin"], "expires_in": None}).json()
        http.headers["Authorization"] = f"Bearer {made['token']}"
        told(http, "", {"name": "hello", "bento": "hello:1"})
        assert http.get(f"{ONE}/revisions").json()["revisions"][0]["creator"] == "ann"
        http.post(f"{ONE}/terminate")
        texts = [event["text"] for event in http.get(f"{ONE}/events?limit=2").json()["events"]]
        assert texts == ["revision 1 is live, by ann", "it is off the air, and kept, by ann"]


def ruled(**rule: Any) -> dict[str, Any]:
    return {"variant": "v", "rule": {"kind": "random", **rule}}


DEPLOY = f"{API}/endpoints"
REFUSED: list[tuple[str, str, Any, str]] = [
    ("POST", DEPLOY, {"variant": 1}, "`variant` has to be a string"),
    ("POST", DEPLOY, {"rule": {"kind": "random"}}, "a `rule` needs one"),
    ("POST", DEPLOY, ruled(share=1), "a rule is not valid: share"),
    ("POST", DEPLOY, ruled(weight="9"), "weight is '9'"),
    ("POST", DEPLOY, ruled(weight=True), "weight is True"),
    ("POST", DEPLOY, ruled(weight=101), "101 of 'v' is no percent"),
    ("POST", DEPLOY, {"secrets": "one"}, "`secrets` has to be a list"),
    ("POST", DEPLOY, {"access": "yes"}, "access='yes'"),
    ("POST", DEPLOY, {"acces": True}, "unknown keys: acces"),
    ("POST", f"{ONE}/rollback", {"revision": "1"}, "a rollback takes a revision's number"),
    ("POST", f"{ONE}/rollback", {"number": 1}, "a rollback takes a revision's number"),
    ("POST", f"{ONE}/promote", {}, "a promotion takes a variant's name"),
    ("PUT", f"{ONE}/variants/canary", {"kind": 1}, "`kind` and `by` have to be strings"),
    ("GET", f"{ONE}/events?limit=x", None, "limit='x'"),
]


def test_what_is_wrong_is_400_and_changes_nothing(http: httpx.Client) -> None:
    before = {**http.get(ONE).json(), "replicas": [], "template": None, "rung": None}
    for method, path, body, says in REFUSED:
        full = {"name": "hello", "bento": "hello:1", **body} if path == DEPLOY else body
        check_error(http.request(method, path, json=full), 400, "bad_request", says)
    assert {**http.get(ONE).json(), "replicas": [], "template": None, "rung": None} == before


def test_what_is_not_there_is_404(http: httpx.Client) -> None:
    for method, path in [("GET", "revisions"), ("GET", "events"), ("POST", "terminate"), ("POST", "start")]:
        check_error(http.request(method, f"{API}/endpoints/nobody/{path}"), 404, "endpoint_not_found", "torpor ls")
    check_error(http.post(f"{ONE}/promote", json={"variant": "canary"}), 404, "not_found", "no variant 'canary'")
    check_error(http.delete(f"{ONE}/variants/canary"), 404, "not_found", "no variant 'canary'")
    check_error(http.post(f"{ONE}/rollback", json={"revision": 8}), 404, "not_found", "no revision 8")


def test_pointers_variants_and_termination_outlive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as platform, httpx.Client(base_url=platform.url, timeout=PATIENCE) as http:
        handmade.upload(platform.url, "hello", handmade.bento("hello", SERVICE))
        for name in ("hello", "kept"):
            for _ in range(2):
                handmade.deployed(platform.url, name, "hello:1")
        told(http, "/hello/rollback", {"revision": 1})
        rule = {"kind": "header", "by": "X-User", "weight": 50}
        told(http, "", {"name": "hello", "bento": "hello:1", "variant": "canary", "rule": rule})
        http.post(f"{API}/endpoints/kept/terminate")
        os.kill(platform.pid, signal.SIGKILL)
        until(lambda: born(platform.pid) is None)
        monkeypatch.setenv("BENTOML_HOME", platform.env["BENTOML_HOME"])
        again = up_detached(["--port", "0"], platform.data)
        with httpx.Client(base_url=again["url"], timeout=PATIENCE) as after:
            hello, kept = after.get(f"{API}/endpoints").json()["endpoints"]
            assert (hello["revision"], hello["variants"][0]["rule"], hello["variants"][0]["revision"]) == (1, rule, 3)
            assert (kept["state"], kept["revision"]) == ("terminated", 2)
            assert after.post("/endpoints/kept/hi", json={"name": "a"}).status_code == 404
            assert after.post("/endpoints/hello~canary/hi", json={"name": "a"}).json() == {"hello": "a"}
            told(after, "/kept/start", {})
            assert after.post("/endpoints/kept/hi", json={"name": "a"}).json() == {"hello": "a"}
