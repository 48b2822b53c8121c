"""Who may call an endpoint, and how often: over a real platform, with real callers."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system import handmade
from tests.system.running import TORPOR, WITHIN, Running, clean_environment, free_port, running
from torpor import Client
from torpor.chaos.look import alive, settle
from torpor.cli.platform import read_address
from torpor.errors import RateLimited, Unauthorized

SERVICE = """
import bentoml

@bentoml.service
class Hello:
    @bentoml.api
    def hi(self, name: str) -> dict:
        return {"hello": name}

    @bentoml.api
    def authorization(self, ctx: bentoml.Context) -> str:
        return str(ctx.request.headers.get("authorization"))
"""
DAY = 86400


@dataclass
class Town:
    """A platform with some endpoints of one bento. `admin`: headers of who may do everything."""

    platform: Running
    admin: dict[str, str]
    told: list[str] = field(default_factory=list)  # the text of each token
    port: int = 0  # the own port of `open`

    @property
    def url(self) -> str:
        return self.platform.url

    def deploy(self, name: str, access: bool | None = None, **settings: Any) -> None:
        body = {"name": name, "bento": "hello:1", "access": access, "settings": {"sleep": "deep", **settings}}
        done = httpx.post(f"{self.url}/torpor/v1/endpoints", json=body, headers=self.admin, timeout=WITHIN)
        assert '"event":"deployed"' in done.text.splitlines()[-1].replace(" ", ""), done.text

    def call(self, name: str, headers: dict[str, str] | None = None, url: str = "") -> httpx.Response:
        where = url or f"{self.url}/endpoints/{name}"
        return httpx.post(f"{where}/hi", json={"name": "a"}, headers=headers, timeout=WITHIN)

    def ask(self, path: str, headers: dict[str, str] | None = None) -> int:
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=WITHIN).status_code

    def view(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/torpor/v1/endpoints/{name}", headers=self.admin, timeout=WITHIN)
        return dict(answer.json())

    def asleep(self, name: str) -> dict[str, Any]:
        """The endpoint's view, once no replica of it runs."""
        sleep = f"{self.url}/torpor/v1/endpoints/{name}/sleep?force=true"
        httpx.post(sleep, headers=self.admin, timeout=WITHIN).raise_for_status()
        return self.view(name)

    def token(self, name: str, *scopes: str) -> dict[str, str]:
        body = {"name": name, "scopes": scopes}
        made = httpx.post(f"{self.url}/torpor/v1/tokens", json=body, headers=self.admin, timeout=WITHIN).json()
        self.told.append(made["token"])
        return {"Authorization": f"Bearer {made['token']}"}

    def metric(self, name: str, endpoint: str, by: str) -> float:
        page = httpx.get(f"{self.url}/metrics", headers=self.admin, timeout=WITHIN).text
        found = re.search(rf'^{name}{{by="{by}",endpoint="{endpoint}"}} (\S+)$', page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])


def configured(folder: Path, *lines: str) -> tuple[str, str]:
    config = folder / "torpor.toml"
    config.write_text("\n".join((*lines, "")))
    return "--config", str(config)


def first_token(folder: Path) -> str:
    line = [TORPOR, "tokens", "create", "root", "--scope", "admin"]
    env = clean_environment(folder)
    return subprocess.run(line, env=env, capture_output=True, text=True, check=True, timeout=WITHIN).stdout.strip()


@contextmanager
def town(folder: Path, *lines: str, token: str = "") -> Iterator[Town]:
    with running(folder, *configured(folder, 'log_level = "debug"', *lines)) as platform:
        found = Town(platform, {"Authorization": f"Bearer {token}"} if token else {}, [token] if token else [])
        tar = handmade.bento("hello", SERVICE)
        sent = httpx.put(
            f"{platform.url}/torpor/v1/bentos/hello/1", content=tar, headers=found.admin, timeout=WITHIN
        )  # fmt: skip
        assert sent.status_code == 200, sent.text
        yield found


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A platform that asks nobody, though it has tokens."""
    with town(tmp_path_factory.mktemp("free"), 'auth = "off"') as found:
        found.deploy("plain")
        found.deploy("closed", True)
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A platform that asks for tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    with town(folder, 'auth = "on"', token=first_token(folder)) as found:
        found.port = free_port()
        found.deploy("plain")
        found.deploy("open", False, port=found.port)
        yield found


def nowhere(town: Town) -> None:
    """No token is in a file of the platform's, its logs and its database included, nor in any process's title."""
    secrets = [text.encode() for text in town.told]
    assert len(secrets) > 1
    files = [path for path in town.platform.data.rglob("*") if path.is_file()]
    assert any(path.name == "router.log" and path.stat().st_size for path in files)
    for path in (*files, *Path("/proc").glob("[0-9]*/cmdline")):
        try:
            content = path.read_bytes()
        except OSError:  # it went meanwhile
            continue
        assert not any(secret in content for secret in secrets), path


def test_a_closed_endpoint_asks_for_a_token_on_a_platform_that_asks_nobody(free: Town) -> None:
    scopes = {"wrong": ["call:plain", "read_cluster"], "own": ["call:closed"], "api": ["api"], "all": ["admin"]}
    tokens = {name: free.token(name, *each) for name, each in scopes.items()}
    unknown = {"Authorization": "Bearer tp_" + "x" * 43}
    found = [free.call("closed", headers).status_code for headers in (None, unknown, *tokens.values())]
    assert found == [401, 401, 403, 200, 200, 200]
    answer = free.call("closed")
    assert (answer.json()["code"], answer.headers["www-authenticate"]) == ("unauthorized", 'Bearer realm="torpor"')
    schema = "/endpoints/closed/schema.json"
    assert [free.ask(schema, headers) for headers in (None, tokens["wrong"], tokens["own"])] == [401, 403, 200]
    assert [free.call("plain").status_code, free.ask("/torpor/v1/status"), free.call("none").status_code] == [
        200,
        200,
        404,
    ]
    own = tokens["own"]["Authorization"].removeprefix("Bearer ")
    with Client(free.url, token=own) as client:
        assert client.endpoint("closed").hi(name="sdk") == {"hello": "sdk"}
        assert client.endpoint("closed").authorization() == "None", "torpor's token is not the service's"
    with Client(free.url) as client, pytest.raises(Unauthorized):
        client.endpoint("closed").hi(name="nobody")
    assert free.metric("torpor_calls_refused_total", "closed", "token") >= 5
    nowhere(free)


def test_closing_an_endpoint_holds_for_the_next_call_and_opening_it_too(free: Town) -> None:
    for access, status in ((None, 200), (True, 401), (False, 200), (True, 401)):
        free.deploy("turned", access)
        assert free.call("turned").status_code == status
    free.platform.told("rm", "turned")
    assert free.call("turned").status_code == 404


def test_a_closed_endpoint_is_closed_after_a_restart(tmp_path: Path) -> None:
    with town(tmp_path, 'auth = "off"') as found:
        found.deploy("closed", True)
        found.platform.told("down")
        found.platform.told("up", "--detach", "--port", "0", "--config", str(tmp_path / "torpor.toml"))
        again = read_address(found.platform.data)
        assert again is not None
        assert found.call("", url=f"{again['url']}/endpoints/closed").status_code == 401


def test_off_the_loopback_address_an_endpoint_is_opened_only_where_the_owner_lets_it(tmp_path: Path) -> None:
    everywhere = ('host = "0.0.0.0"', 'auth = "on"')
    with town(tmp_path, *everywhere, token=first_token(tmp_path)) as found:
        found.deploy("open", False)
        assert found.call("open").status_code == 401
        history = httpx.get(f"{found.url}/torpor/v1/endpoints/open/events", headers=found.admin, timeout=WITHIN).json()
        assert [each["kind"] for each in history["events"] if "open_endpoints" in each["text"]] == ["note"]
        found.platform.told("down")
        config = configured(tmp_path, *everywhere, "open_endpoints = true")
        found.platform.told("up", "--detach", "--port", "0", *config)
        again = read_address(found.platform.data)
        assert again is not None
        assert found.call("", url=f"{again['url']}/endpoints/open").status_code == 200


def test_an_open_endpoint_asks_nobody_on_a_platform_that_asks_for_tokens(guarded: Town) -> None:
    guarded.asleep("open")
    assert guarded.call("open").json() == {"hello": "a"}, "a stranger's call wakes it"
    assert guarded.call("open", {"Authorization": "Bearer tp_" + "x" * 43}).status_code == 200
    assert guarded.call("", url=f"http://127.0.0.1:{guarded.port}").status_code == 200
    assert guarded.call("", {"Host": "open.localhost"}, guarded.url).status_code == 200
    quiet = ["schema.json", "healthz", "readyz", "metrics"]
    assert [guarded.ask(f"/endpoints/open/{path}") for path in quiet] == [200] * 4
    assert [guarded.ask(f"/endpoints/plain/{path}") for path in quiet] == [401] * 4
    closed = ["/torpor/v1/endpoints", "/torpor/v1/endpoints/open", "/torpor/v1/endpoints/open/logs", "/metrics"]
    assert [guarded.ask(path) for path in closed] == [401] * 4
    assert [guarded.call(name).status_code for name in ("plain", "none")] == [401, 401]
    assert guarded.call("none", guarded.admin).status_code == 404
    theirs = {"Authorization": "Bearer sk-theirs"}
    said = httpx.post(f"{guarded.url}/endpoints/open/authorization", json={}, headers=theirs, timeout=WITHIN)
    assert said.text == "Bearer sk-theirs"
    said = httpx.post(f"{guarded.url}/endpoints/open/authorization", json={}, headers=guarded.admin, timeout=WITHIN)
    assert said.text == "None"
    other = guarded.token("other", "call:plain")["Authorization"].removeprefix("Bearer ")
    for token in (None, other):
        with Client(guarded.url, token=token) as client:
            assert client.endpoint("open").hi(name="sdk") == {"hello": "sdk"}
    with Client(guarded.url) as client, pytest.raises(Unauthorized):
        client.endpoint("plain").hi(name="nobody")
    nowhere(guarded)


def test_of_a_burst_exactly_the_buckets_calls_pass_and_the_others_start_nothing(free: Town) -> None:
    free.deploy("rated", rate=0.001, burst=4)
    before = free.asleep("rated")
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: free.call("rated"), range(24)))
    assert Counter(each.status_code for each in answers) == {200: 4, 429: 20}
    refused = [each for each in answers if each.status_code == 429]
    assert {each.json()["code"] for each in refused} == {"rate_limited"}
    assert {each.headers["retry-after"] for each in refused} == {"120"}
    asleep = free.asleep("rated")
    assert asleep["cold_starts"] == before["cold_starts"] + 1
    assert {free.call("rated").status_code for _ in range(10)} == {429}
    after = free.view("rated")
    assert (after["state"], after["replicas"], after["cold_starts"]) == ("asleep", [], asleep["cold_starts"])
    assert after["calls"] == before["calls"] + 4
    assert free.metric("torpor_calls_refused_total", "rated", "rate") == 30
    with Client(free.url, answer_within=5.0) as client, pytest.raises(RateLimited, match=r"0\.001 calls a second"):
        client.endpoint("rated").hi(name="a")


def test_who_waits_as_retry_after_says_is_served(free: Town) -> None:
    free.deploy("slow", rate=1)
    assert free.call("slow").status_code == 200
    refused = free.call("slow")
    while refused.status_code != 429:  # the machine was slower than the bucket
        refused = free.call("slow")
    time.sleep(int(refused.headers["retry-after"]))
    assert free.call("slow").status_code == 200


def test_the_client_waits_for_the_bucket(free: Town) -> None:
    free.deploy("paced", rate=2, burst=1)
    with Client(free.url) as client:
        assert [client.endpoint("paced").hi(name=name) for name in "abc"] == [{"hello": name} for name in "abc"]
    assert free.view("paced")["calls"] == 3


def used(data: Path, name: str) -> int:
    with closing(sqlite3.connect(f"file:{data / 'torpor.db'}?mode=ro", uri=True)) as connection:
        [(count,)] = connection.execute("select used from endpoints where name = ?", (name,)).fetchall()
    return int(count or 0)


def test_what_a_day_has_used_outlives_a_kill_and_a_restart(tmp_path: Path) -> None:
    while DAY - time.time() % DAY < 180:  # a new day would begin in its midst
        time.sleep(1)
    with town(tmp_path) as found:
        found.deploy("few", quota=10)
        assert [found.call("few").status_code for _ in range(6)] == [200] * 6
        assert settle(lambda: [] if used(found.platform.data, "few") == 6 else ["unwritten"], 20) == []
        assert [found.call("few").status_code for _ in range(2)] == [200] * 2
        os.kill(found.platform.pid, signal.SIGKILL)
        assert settle(lambda: ["it lives"] if alive(found.platform.pid) else [], 20) == []
        here = up_again(found)
        passed = 0
        while found.call("", url=here).status_code == 200:
            passed += 1
        assert 2 <= passed <= 4, "of ten, eight were used, and at least six of them were written"
        refused = found.call("", url=here)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "120")
        assert "10 calls a day (UTC)" in refused.json()["error"]
        found.platform.told("down")
        here = up_again(found)
        assert found.call("", url=here).status_code == 429, "an orderly end loses none"


def up_again(town: Town) -> str:
    """The endpoint's address at the platform's next router."""
    town.platform.told("up", "--detach", "--port", "0")
    found = read_address(town.platform.data)
    assert found is not None
    return f"{found['url']}/endpoints/few"
