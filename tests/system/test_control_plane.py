"""The control plane over real HTTP: what it answers, what it refuses, and that a refusal changes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.launch.orphans import born
from tests.system import handmade
from tests.system.running import Running, free_port, running
from torpor.cli.platform import read_address
from torpor.errors import BY_CODE
from torpor.wire import EndpointView

API = "/torpor/v1"
PATIENCE = 60.0  # seconds until something that should happen is a failure

SERVICE = """
import time
import bentoml

@bentoml.service
class Hello:
    def __init__(self) -> None:
        print("hello is made", flush=True)

    @bentoml.api
    def hi(self, name: str) -> dict:
        print("hi to", name, flush=True)
        return {"hello": name}

    @bentoml.api
    def nap(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"
"""
OTHERS = """
import time
import bentoml

@bentoml.service
class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no weights here")

@bentoml.service
class Slow:
    def __init__(self) -> None:
        print("loads for ever", flush=True)
        time.sleep(3600)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("platform")) as started:
        handmade.upload(started.url, "hello", handmade.bento("hello", SERVICE))
        for kind in ("Broken", "Slow"):
            name = kind.lower()
            handmade.upload(started.url, name, handmade.bento(name, OTHERS, f"service:{kind}"))
        handmade.deployed(started.url, "hello", "hello:1", port=free_port())
        yield started


@pytest.fixture
def http(platform: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.url, timeout=PATIENCE) as client:
        yield client


def check_error(answer: httpx.Response, status: int, code: str, *says: str) -> None:
    """The documented shape: two lines, a code of the tree, whether to try again."""
    assert answer.headers["content-type"] == "application/json", answer.text
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert set(body) <= {"error", "code", "retryable", "detail"}
    assert body["retryable"] is BY_CODE[code].retryable
    lines = body["error"].split("\n")
    assert len(lines) == 2, body["error"]
    assert all(lines)
    for each in says:
        assert each in body["error"]


def test_status_names_the_router_that_answers(http: httpx.Client, platform: Running) -> None:
    status = http.get(f"{API}/status").json()
    counts = {"endpoints", "replicas", "memory", "descriptors", "tasks"}
    assert set(status) == {"version", "pid", "started_at", "data"} | counts
    assert (status["pid"], status["data"], status["endpoints"]) == (platform.pid, str(platform.data), 1)
    assert status["memory"] > 1 << 20


def test_an_endpoint_is_shown_with_everything_that_the_contract_names(http: httpx.Client, platform: Running) -> None:
    view = http.get(f"{API}/endpoints/hello").json()
    assert set(view) == set(EndpointView.__annotations__)
    assert (view["name"], view["revision"], view["bento"]) == ("hello", 1, "hello:1")
    assert view["url"] == f"{platform.url}/endpoints/hello"
    assert [route["name"] for route in view["schema"]["routes"]] == ["hi", "nap"]
    [listed] = http.get(f"{API}/endpoints").json()["endpoints"]
    assert {**listed, "replicas": []} == {**view, "replicas": []}  # a replica's memory may be another by now


def test_wake_and_sleep_answer_when_it_is_done(http: httpx.Client) -> None:
    assert http.post(f"{API}/endpoints/hello/sleep").json()["replicas"] == []
    woken = http.post(f"{API}/endpoints/hello/wake").json()
    assert (woken["state"], woken["replicas"][0]["state"], woken["in_flight"]) == ("awake", "ready", 0)
    pid = woken["replicas"][0]["pid"]
    assert born(pid) is not None
    slept = http.post(f"{API}/endpoints/hello/sleep").json()
    assert (slept["state"], slept["replicas"], born(pid)) == ("asleep", [], None)
    for quiet in ("/healthz", "/livez", "/readyz", "/schema.json", "/metrics"):
        assert http.get(f"/endpoints/hello{quiet}").status_code == 200
    assert http.get(f"{API}/endpoints/hello").json()["state"] == "asleep", "a quiet read wakes nothing"


def test_sleep_is_a_conflict_while_a_call_runs_and_may_be_forced(http: httpx.Client) -> None:
    naps = threading.Thread(target=lambda: httpx.post(f"{http.base_url}/endpoints/hello/nap", json={"seconds": 0.5}))
    naps.start()
    until(lambda: http.get(f"{API}/endpoints/hello").json()["in_flight"] == 1)
    check_error(http.post(f"{API}/endpoints/hello/sleep"), 409, "conflict", "1 calls or tasks running", "force")
    forced = http.post(f"{API}/endpoints/hello/sleep?force=true").json()
    naps.join()
    assert (forced["state"], forced["in_flight"]) == ("asleep", 0)


UNKNOWN = [
    ("GET", "/endpoints/nobody"),
    ("DELETE", "/endpoints/nobody"),
    ("POST", "/endpoints/nobody/wake"),
    ("POST", "/endpoints/nobody/sleep"),
    ("GET", "/endpoints/nobody/logs"),
    ("GET", "/endpoints/NO_NAME"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_an_unknown_endpoint_is_404(http: httpx.Client, method: str, path: str) -> None:
    check_error(http.request(method, API + path), 404, "endpoint_not_found", "torpor ls")


def test_an_unknown_path_method_or_bento_is_told_apart(http: httpx.Client) -> None:
    check_error(http.get("/nowhere"), 404, "not_found", "/nowhere", API)
    check_error(http.get(f"{API}/endpoint"), 404, "not_found")
    wrong = http.put(f"{API}/endpoints")
    check_error(wrong, 405, "not_found", "PUT")
    assert set(wrong.headers["allow"].replace(" ", "").split(",")) >= {"POST"}
    check_error(http.get(f"{API}/bentos/nobody/1"), 404, "not_found", "nobody:1")
    check_error(http.get(f"{API}/bentos/..%2f..%2fetc/passwd"), 404, "not_found")
    check_error(http.get(f"{API}/bentos/-x/1"), 400, "bad_request", "name:version")


SETTINGS = {"name": "e", "bento": "hello:1"}
BAD: list[tuple[bytes, int, str, tuple[str, ...]]] = [
    (b"", 400, "bad_request", ("not JSON",)),
    (b"{", 400, "bad_request", ("not JSON",)),
    (b"\xff\xfe", 400, "bad_request", ("not JSON",)),
    (b"[" * 5000, 400, "bad_request", ("not JSON",)),
    (b"[]", 400, "bad_request", ("JSON list", "one JSON object")),
    (b"null", 400, "bad_request", ("NoneType",)),
    (b'{"name": "e"}', 400, "bad_request", ("`name` and `bento` have to be strings",)),
    (json.dumps({**SETTINGS, "name": 3}).encode(), 400, "bad_request", ("have to be strings",)),
    (json.dumps({**SETTINGS, "nmae": "e", "x": 1}).encode(), 400, "bad_request", ("unknown keys: nmae, x",)),
    (json.dumps({**SETTINGS, "env": ["A"]}).encode(), 400, "bad_request", ("`env` has to be an object",)),
    (json.dumps({**SETTINGS, "env": {"A": 1}}).encode(), 400, "bad_request", ("numbers as strings",)),
    (json.dumps({**SETTINGS, "env": {"A=B": "1"}}).encode(), 400, "bad_request", ("A=B",)),
    (json.dumps({**SETTINGS, "settings": 3}).encode(), 400, "bad_request", ("`settings` has to be an object",)),
    (json.dumps({**SETTINGS, "name": "No Name"}).encode(), 400, "bad_request", ("'No Name'", "lower-case")),
    (json.dumps({**SETTINGS, "bento": "hello"}).encode(), 400, "bad_request", ("name:version",)),
    (json.dumps({**SETTINGS, "bento": "nobody:1"}).encode(), 404, "not_found", ("nobody:1",)),
    (
        json.dumps({**SETTINGS, "settings": {"idle_afte": 1, "port": 0, "max_replicas": "many"}}).encode(),
        422,
        "invalid_config",
        ("did you mean idle_after?", "settings.port = 0", "'many'", "from 1 to 65535"),
    ),
    (json.dumps({**SETTINGS, "settings": {"idle_after": -1}}).encode(), 422, "invalid_config", ("from 0 to",)),
    (json.dumps({**SETTINGS, "settings": {"concurrency": True}}).encode(), 422, "invalid_config", ("True",)),
]


@pytest.mark.parametrize(("body", "status", "code", "says"), BAD, ids=range(len(BAD)))
def test_a_deploy_that_says_nothing_sensible_is_refused_before_anything_changes(
    http: httpx.Client, body: bytes, status: int, code: str, says: tuple[str, ...]
) -> None:
    def there() -> list[dict[str, Any]]:  # memory is measured all the time
        passing: dict[str, Any] = {"replicas": [], "template": None, "rung": None}
        return [view | passing for view in http.get(f"{API}/endpoints").json()["endpoints"]]

    before = there()
    check_error(http.post(f"{API}/endpoints", content=body), status, code, *says)
    assert there() == before


@pytest.mark.parametrize("query", ["tail=x", "tail=-1", "tail=100000", "follow=maybe"])
def test_a_log_that_is_asked_for_wrongly_is_refused(http: httpx.Client, query: str) -> None:
    check_error(http.get(f"{API}/endpoints/hello/logs?{query}"), 400, "bad_request", query.partition("=")[0])


def test_a_body_beyond_its_limit_is_413_and_not_read_to_its_end(http: httpx.Client) -> None:
    check_error(http.post(f"{API}/endpoints", content=b" " * ((1 << 20) + 1)), 413, "body_too_large", "1048576")
    with socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=PATIENCE) as line:
        line.sendall(f"POST {API}/endpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n\r\n".encode())
        line.sendall(b" " * ((1 << 20) + 1))
        assert line.recv(12) == b"HTTP/1.1 413", "the rest was not waited for"


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:7300"},
    {"Host": "127.0.0.1.evil.example"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:9"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: next(iter(headers.values())))
@pytest.mark.parametrize(("method", "path"), [("GET", "/status"), ("DELETE", "/endpoints/hello")])
def test_a_page_of_another_site_may_neither_read_nor_change(
    http: httpx.Client, headers: dict[str, str], method: str, path: str
) -> None:
    check_error(http.request(method, API + path, headers=headers), 403, "forbidden")
    assert http.get(f"{API}/endpoints/hello").status_code == 200


@pytest.mark.parametrize("headers", [{"Host": "[:::::]"}, {"Origin": "http://["}], ids=str)
def test_an_address_that_is_none_is_refused(http: httpx.Client, headers: dict[str, str]) -> None:
    check_error(http.get(f"{API}/status", headers=headers), 403, "forbidden")


def test_where_a_read_goes_is_decided_once(http: httpx.Client) -> None:
    assert http.get("/endpoints/hello/schema.json").json()["name"]
    check_error(http.get("/%65ndpoints/hello/schema.json"), 404, "not_found")
    assert http.get(f"{API}/status", headers={"Host": "127.0.0.1:9"}).json()["version"]


def test_an_endpoint_named_without_its_slash_is_found_with_it(http: httpx.Client) -> None:
    answer = http.get("/endpoints/hello?a=1")
    assert (answer.status_code, answer.headers["location"]) == (308, "/endpoints/hello/?a=1")
    check_error(http.get("/endpoints/nobody"), 404, "endpoint_not_found", "nobody")


def test_waking_an_endpoint_is_no_call(http: httpx.Client) -> None:
    before = http.get(f"{API}/endpoints/hello").json()["calls"]
    assert http.post(f"{API}/endpoints/hello/wake").json()["calls"] == before


def test_our_own_names_and_origin_are_let_in(http: httpx.Client) -> None:
    port = http.base_url.port
    for headers in (
        {"Host": f"localhost:{port}"},
        {"Host": f"anything.localhost:{port}"},
        {"Host": f"[::1]:{port}"},
        {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}"},
    ):
        if headers["Host"].startswith("anything"):
            check_error(http.get(f"{API}/status", headers=headers), 404, "endpoint_not_found", "anything")
        else:
            assert http.get(f"{API}/status", headers=headers).status_code == 200


def test_a_deploy_is_answered_by_events_as_they_happen(http: httpx.Client) -> None:
    port = free_port()
    wanted = {"name": "second", "bento": "hello:1", "env": {"A": "1"}, "settings": {"idle_after": 60, "port": port}}
    with http.stream("POST", f"{API}/endpoints", json=wanted) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        told = [json.loads(line) for line in answer.iter_lines()]
    phases = [(event["event"], event.get("phase"), event.get("detail")) for event in told[:-1]]
    assert phases == [
        ("phase", "checked", "hello:1"),
        ("phase", "preparing environment", "the platform's own"),
        ("phase", "starting", "revision 1"),
    ]
    last = told[-1]
    assert set(last) == {"event", "endpoint"}
    assert (last["event"], last["endpoint"]["settings"]["idle_after"]) == ("deployed", 60.0)
    assert last["endpoint"]["own_url"] == f"http://127.0.0.1:{port}"
    assert httpx.post(f"http://127.0.0.1:{port}/hi", json={"name": "own"}).json() == {"hello": "own"}
    check_error(
        http.post(f"{API}/endpoints", json={**wanted, "name": "third"}), 409, "conflict", f"port {port}", "second"
    )
    removed = http.delete(f"{API}/endpoints/second").json()
    assert (removed["name"], removed["state"]) == ("second", "awake")
    check_error(http.get(f"{API}/endpoints/second"), 404, "endpoint_not_found")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")


def test_a_deploy_that_fails_ends_its_events_with_the_error_and_leaves_the_revision_before(
    http: httpx.Client, platform: Running
) -> None:
    before = http.get(f"{API}/endpoints/hello").json()
    last = list(handmade.events(platform.url, {"name": "hello", "bento": "broken:1"}))[-1]
    assert {key: last[key] for key in ("event", "status", "code", "retryable")} == {
        "event": "error",
        "status": 503,
        "code": "start_failed",
        "retryable": True,
    }
    assert "RuntimeError: no weights here" in last["error"]
    assert any("raise RuntimeError" in line for line in last["detail"]["log"])
    after = http.get(f"{API}/endpoints/hello").json()
    assert (after["revision"], after["bento"]) == (before["revision"], before["bento"])
    assert http.post("/endpoints/hello/hi", json={"name": "still"}).json() == {"hello": "still"}


def test_a_deploy_whose_caller_leaves_is_given_up_and_one_beside_it_is_a_conflict(
    http: httpx.Client, platform: Running
) -> None:
    wanted = {"name": "slow", "bento": "slow:1"}
    with http.stream("POST", f"{API}/endpoints", json=wanted) as answer:
        lines = answer.iter_lines()
        while json.loads(next(lines)).get("phase") != "starting":
            pass
        check_error(httpx.post(f"{platform.url}{API}/endpoints", json=wanted), 409, "conflict", "being deployed")
        check_error(httpx.get(f"{platform.url}{API}/endpoints/slow"), 404, "endpoint_not_found")
        until(lambda: replicas_of(platform, "slow"))
        [pid] = replicas_of(platform, "slow")
    until(lambda: born(pid) is None)
    wanted["bento"] = "hello:1"
    assert list(handmade.events(platform.url, wanted))[-1]["event"] == "deployed", "its name is free again"
    http.delete(f"{API}/endpoints/slow")


def replicas_of(platform: Running, endpoint: str) -> list[int]:
    """The pids of an endpoint's replicas, on trial too, by their logs, which are their standard output."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                output = os.readlink(entry / "fd" / "1")
            except OSError:
                continue
            if output.startswith(f"{platform.data}/logs/{endpoint}/"):
                found.append(int(entry.name))
    return found


def test_logs_are_told_from_the_end_and_followed(http: httpx.Client) -> None:
    http.post("/endpoints/hello/hi", json={"name": "first"})
    lines = http.get(f"{API}/endpoints/hello/logs?tail=1").text.splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["hi to first"]
    assert http.get(f"{API}/endpoints/hello/logs?tail=0").text == ""
    everything = http.get(f"{API}/endpoints/hello/logs")
    assert everything.headers["content-type"] == "text/plain; charset=utf-8"
    assert "hello is made" in everything.text
    with http.stream("GET", f"{API}/endpoints/hello/logs?tail=1&follow=true") as answer:
        followed = answer.iter_lines()
        assert next(followed).endswith("hi to first")
        httpx.post(f"{http.base_url}/endpoints/hello/hi", json={"name": "second"})
        replica, _, text = next(followed).partition(" ")
        assert (replica.startswith("hello-"), text) == (True, "hi to second")


def test_an_upload_that_is_cut_off_leaves_nothing(http: httpx.Client, platform: Running) -> None:
    tar = handmade.bento("cut", SERVICE)
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as line:
        head = f"PUT {API}/bentos/cut/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(tar)}\r\n\r\n"
        line.sendall(head.encode() + tar[:2000])
        until(lambda: bool(list((platform.data / "incoming").iterdir())))
    until(lambda: not list((platform.data / "incoming").iterdir()))
    check_error(http.get(f"{API}/bentos/cut/1"), 404, "not_found")
    check_error(http.put(f"{API}/bentos/cut/1", content=tar[:2000]), 400, "bad_request", "not a bento's tar")
    check_error(http.put(f"{API}/bentos/cut/2", content=tar), 400, "bad_request", "holds the bento cut:1")
    for _ in range(2):
        handmade.upload(platform.url, "cut", tar)
    assert http.get(f"{API}/bentos/cut/1").json() == {"bento": "cut:1"}


def test_a_second_router_on_the_same_data_is_refused_and_the_first_goes_on(
    http: httpx.Client, platform: Running
) -> None:
    command = [sys.executable, "-P", "-m", "torpor.cli.application", "router", "--data", str(platform.data)]
    second = subprocess.run([*command, "--port", "0"], env=platform.env, capture_output=True, text=True, timeout=60)
    assert second.returncode not in (0, 1)
    assert second.stderr.startswith(f"a router (pid {platform.pid}) uses {platform.data} already\nstop it with")
    assert read_address(platform.data) == {**(read_address(platform.data) or {}), "pid": platform.pid}
    assert http.get(f"{API}/status").status_code == 200


def until(true: Any) -> None:
    """Asks again and again, for as long as is patient."""
    for _ in range(int(PATIENCE / 0.01)):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")
