"""Who one is on a platform, by the stock bentoml command line: login, tokens, secrets, instance types, the browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.running import WITHIN, Running, running

SERVICE = """
import os
from pathlib import Path

import bentoml


@bentoml.service
class Told:
    @bentoml.api
    def variable(self, name: str) -> str:
        return os.environ.get(name, "")

    @bentoml.api
    def file(self, place: str) -> str:
        return Path(os.environ["TORPOR_SECRETS"], place).read_text()
"""
VALUE = "a-value-that-nobody-should-read"


@dataclass(frozen=True)
class Account:
    """A platform that asks for tokens, and one that may do everything."""

    on: Running
    token: str

    def run(self, *arguments: str, home: str = "bentoml") -> subprocess.CompletedProcess[str]:
        """One bentoml command. `home`: whose login it has."""
        folder = self.on.data.parent / home
        folder.mkdir(exist_ok=True)
        env = self.on.env | {"BENTOML_HOME": str(folder), "COLUMNS": "300"}
        command = ["bentoml", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=WITHIN)

    def ok(self, *arguments: str, home: str = "bentoml") -> str:
        done = self.run(*arguments, home=home)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, home: str = "bentoml") -> str:
        done = self.run(*arguments, home=home)
        assert done.returncode != 0, f"{arguments}: {done.stdout}"
        return done.stdout + done.stderr

    def login(self, token: str, home: str = "bentoml") -> subprocess.CompletedProcess[str]:
        return self.run("cloud", "login", "--endpoint", self.on.url, "--api-token", token, home=home)

    def client(self, token: str | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.on.url, headers={} if token is None else {"X-YATAI-API-TOKEN": token})


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with running(tmp_path_factory.mktemp("account")) as on:
        token = on.told("tokens", "create", "ci", "--scope", "admin").strip()
        made = Account(replace(on, env=on.env | {"TORPOR_TOKEN": token}), token)
        assert "Logged in as ci at default" in made.login(made.token).stdout
        yield made


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    (folder / "service.py").write_text(SERVICE)
    (folder / "bentofile.yaml").write_text("service: service:Told\n")
    return folder


def made_token(printed: str) -> dict[str, Any]:
    """What `api-token create -o json` prints, behind a box."""
    return dict(json.loads(printed[printed.index("\n{") :]))


def test_a_login_is_by_a_token_of_the_platform_and_names_it(account: Account) -> None:
    wrong = account.login("wrong", home="wrong")
    assert wrong.returncode != 0
    assert "401" in wrong.stdout + wrong.stderr
    assert json.loads(account.ok("cloud", "current-context"))["endpoint"] == account.on.url


def test_instance_types_are_what_the_machine_has(account: Account) -> None:
    cores = len(os.sched_getaffinity(0))
    found = {each["name"]: each for each in json.loads(account.ok("deployment", "list-instance-types", "-o", "json"))}
    assert found["cpu.max"]["cpu"] == str(cores)
    assert ("cpu.1" in found) == (cores > 1)
    with account.client(account.token) as client:
        full = client.get("/api/v1/clusters/default").json()
        assert [each["name"] for each in full["resource_instances"]] == list(found)
        assert client.get("/api/v1/clusters").json()["items"][0]["is_first"] is True
        other = client.get("/api/v1/instance_types?cluster=other")
        assert (other.status_code, other.headers["content-type"]) == (404, "text/plain; charset=utf-8")


def test_a_token_is_told_once_and_ends_when_it_is_deleted(account: Account) -> None:
    made = made_token(account.ok("api-token", "create", "laptop", "-s", "api", "--expires", "1d", "-o", "json"))
    listed = account.ok("api-token", "list", "-o", "json")
    assert made["token"] not in listed
    assert made["uid"] in listed
    assert "laptop" in account.login(made["token"], home="laptop").stdout
    assert '"laptop"' in account.ok("api-token", "get", made["uid"], "-o", "json")
    assert "409" in account.refused("api-token", "create", "laptop", "-s", "api")
    account.ok("api-token", "delete", made["uid"])
    assert "not found" in account.refused("api-token", "get", made["uid"])
    assert "401" in account.refused("api-token", "list", home="laptop")


def test_a_token_ends_at_its_instant_which_is_utc_where_no_zone_is_named(account: Account) -> None:
    with account.client(account.token) as client:

        def ask(expires_at: str) -> httpx.Response:
            body = {"name": f"until-{datetime.now().timestamp()}", "scopes": ["api"], "expired_at": expires_at}
            return client.post("/api/v1/api_tokens", json=body)

        naive = datetime.now(UTC).replace(tzinfo=None)
        assert ask((naive - timedelta(seconds=5)).isoformat()).status_code == 400
        assert ask("tomorrow").status_code == 400
        made = ask(str(naive + timedelta(seconds=1.5))).json()
        assert made["is_expired"] is False
        with account.client(made["token"]) as short:
            while (answer := short.get("/api/v1/auth/current")).status_code == 200:
                assert answer.json()["name"] == made["name"]
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
        assert datetime.now(UTC).replace(tzinfo=None) > naive + timedelta(seconds=1.5)
        assert client.get(f"/api/v1/api_tokens/{made['uid']}").json()["is_expired"] is True


def test_who_may_only_read_is_told_which_scope_is_lacking(account: Account) -> None:
    scopes = ("-s", "read_organization", "-s", "read_cluster")
    made = made_token(account.ok("api-token", "create", "reader", *scopes, "-o", "json"))
    assert account.login(made["token"], home="reader").returncode == 0
    account.ok("secret", "list", home="reader")
    account.ok("deployment", "list", home="reader")
    refused = account.refused("secret", "create", "nope", "A=b", home="reader")
    assert "403" in refused
    assert "write_organization" in refused
    writer = made_token(account.ok("api-token", "create", "writer", "-s", "write_organization", "-o", "json"))
    with account.client(writer["token"]) as client:
        more = client.post("/api/v1/api_tokens", json={"name": "more", "scopes": ["admin"]})
        assert (more.status_code, "may not give what it has not: admin" in more.text) == (403, True)
        same = client.post("/api/v1/api_tokens", json={"name": "same", "scopes": None}).json()
        assert same["scopes"] == ["write_organization"]
        (admin,) = client.get("/api/v1/api_tokens?search=ci").json()["items"]
        assert client.delete(f"/api/v1/api_tokens/{admin['uid']}").status_code == 403


def test_the_command_line_prints_a_refusal_as_a_sentence(account: Account) -> None:
    with account.client(account.token) as client:
        answers = {
            "nowhere": client.get("/api/v1/nothing"),
            "method": client.put("/api/v1/org_secrets"),
            "unknown": client.get("/api/v1/org_secrets/nope"),
            "no JSON": client.post("/api/v1/org_secrets", content=b"{"),
            "no name": client.post("/api/v1/org_secrets", json={"content": {"items": []}}),
            "no items": client.post("/api/v1/org_secrets", json={"name": "s", "content": {"type": "env"}}),
            "item": client.post("/api/v1/org_secrets", json={"name": "s", "content": {"items": [{"value": VALUE}]}}),
            "count": client.get("/api/v1/org_secrets?count=many"),
        }
    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == dict.fromkeys(answers, 400) | {"nowhere": 404, "unknown": 404, "method": 405}
    for answer in answers.values():
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "\n" not in answer.text
        assert VALUE not in answer.text


def test_a_secret_reaches_the_replicas_and_nothing_else(account: Account, service: Path, tmp_path: Path) -> None:
    (tmp_path / "cert").write_text(VALUE)
    account.ok("secret", "create", "variables", f"TOLD={VALUE}", "OTHER=1")
    account.ok("secret", "create", "files", "-t", "file", "-p", "/etc/tls", f"cert=@{tmp_path / 'cert'}")
    assert "409" in account.refused("secret", "create", "files", "A=b")
    listed = account.ok("secret", "list", "-o", "json") + account.on.told("secrets", "ls", "--json")
    assert "TOLD" in listed
    assert VALUE not in listed
    account.on.told("deploy", str(service), "--name", "told", "-s", "variables", "-s", "files")
    told = ("call", "told", "variable", "-a", "name=TOLD")
    assert account.on.told(*told).strip().strip('"') == VALUE
    assert account.on.told("call", "told", "file", "-a", "place=etc/tls/cert").strip().strip('"') == VALUE
    assert_untold(account)

    assert "used by told" in account.refused("secret", "delete", "variables")
    account.ok("secret", "apply", "variables", "TOLD=changed")
    account.on.told("sleep", "told")
    assert account.on.told(*told).strip().strip('"') == "changed"
    assert_untold(account)

    account.on.told("rm", "told")
    ends = time.monotonic() + WITHIN
    while left := [each for each in (account.on.data / "run").rglob("secrets") if each.is_dir()]:
        assert time.monotonic() < ends, f"{left}: a template ends a little later"
        time.sleep(0.05)
    account.ok("secret", "delete", "variables")
    account.ok("secret", "delete", "files")
    assert "not found" in account.refused("secret", "delete", "files")


def assert_untold(account: Account) -> None:
    """The value is in no file of the platform but those for the replica, in no process's title, in no log."""
    data = account.on.data
    held = [path for path in data.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]
    assert {path.parts[len(data.parts)] for path in held} <= {"run"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in held)
    for title in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert VALUE.encode() not in title.read_bytes()
        except OSError:  # it has ended
            continue


def test_torpors_own_command_takes_values_from_files_and_standard_input(account: Account, tmp_path: Path) -> None:
    dotenv = tmp_path / "env"
    dotenv.write_text(f"# for tests\n\nexport FIRST='{VALUE}'\nSECOND = 2\n")
    command = ["torpor", "secrets", "set", "own", "THIRD=-", "SECOND=3", "--from-file", str(dotenv)]
    done = subprocess.run(command, env=account.on.env, input="piped\n", capture_output=True, text=True, timeout=WITHIN)
    assert (done.returncode, done.stdout) == (0, "own: FIRST, SECOND, THIRD\n"), done.stderr
    found = json.loads(account.on.told("secrets", "ls", "--json"))
    (shown,) = [each for each in found if each["name"] == "own"]
    assert (shown["name"], shown["keys"], shown["users"]) == ("own", ["FIRST", "SECOND", "THIRD"], [])
    assert "FIRST, SECOND, THIRD" in account.on.told("secrets", "ls")
    dotenv.write_text(VALUE)
    for wrong in ((VALUE,), ("--from-file", str(dotenv)), ("A=-", "B=-"), ()):
        refused = account.on.torpor("secrets", "set", "own", *wrong)
        assert (refused.returncode, VALUE in refused.stderr) == (2, False)
    assert account.on.told("secrets", "rm", "own") == "removed own\n"
    assert account.on.torpor("secrets", "rm", "own").returncode == 3


def code_of(page: str) -> str:
    found = re.search(r'name="code" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


def test_a_browser_logs_in_and_allows_a_command_line_its_token_once(account: Account) -> None:
    with account.client() as terminal, account.client() as browser:
        code = terminal.get("/api/v1/auth/code").json()["code"]
        poll = f"/api/v1/auth/token?code={code}"
        assert terminal.get(poll).status_code == 404
        there = f"/api_tokens?code={code}"
        first = browser.get(there)
        assert (first.status_code, first.headers["location"]) == (303, f"/login?next=%2Fapi_tokens%3Fcode%3D{code}")
        login = browser.get(first.headers["location"])
        assert f'value="{there}"' in login.text
        assert "default-src 'none'" in login.headers["content-security-policy"]

        own = {"Origin": account.on.url}
        wrong = browser.post("/login", data={"token": "wrong", "next": there}, headers=own)
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        right = browser.post("/login", data={"token": account.token, "next": there}, headers=own)
        assert (right.status_code, right.headers["location"]) == (303, there)
        cookie = right.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert account.token not in cookie

        page = browser.get(there)
        assert code_of(page.text) == code
        assert terminal.get(poll).status_code == 404
        for origin in ({}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}):
            assert browser.post("/api_tokens", data={"code": code}, headers=origin).status_code == 403
        assert browser.post("/api_tokens", data={"code": code}, headers=own).status_code == 401
        done = browser.post("/api_tokens", data={"code": code, "token": account.token}, headers=own)
        assert (done.status_code, f"browser-{code[:8]}" in done.text) == (200, True)
        assert browser.post("/api_tokens", data={"code": code}, headers=own).status_code == 404
        token = terminal.get(poll).json()["token"]
        assert terminal.get(poll).status_code == 404
    assert f"browser-{code[:8]}" in account.login(token, home="browser").stdout
    with account.client(token) as client:
        assert client.get("/api/v1/api_tokens?search=browser").json()["items"][0]["scopes"] == ["api"]


def test_a_session_ends_with_its_token_or_when_it_is_told_to(account: Account) -> None:
    own = {"Origin": account.on.url}
    text = account.on.told("tokens", "create", "passing", "--scope", "admin").strip()
    with account.client() as browser:
        browser.post("/login", data={"token": text}, headers=own)
        code = browser.get("/api/v1/auth/code").json()["code"]
        assert browser.get(f"/api_tokens?code={code}").status_code == 200
        assert browser.get("/torpor/v1/tokens").status_code == 401, "a cookie is no token"
        account.on.told("tokens", "revoke", "passing")
        assert browser.get(f"/api_tokens?code={code}").status_code == 303
    with account.client() as browser:
        browser.post("/login", data={"token": account.token}, headers=own)
        assert browser.get(f"/api_tokens?code={code}").status_code == 200
        forged = {"X-Torpor-Session": "00" * 32, "X-Torpor-Holder": "00" * 32}
        assert browser.get(f"/api_tokens?code={code}", headers=forged).status_code == 200, "taken from the cookie only"
        assert browser.post("/logout", headers=own).status_code == 303
        assert browser.get(f"/api_tokens?code={code}").status_code == 303


def test_a_login_leads_to_pages_of_this_platform_only(account: Account) -> None:
    own = {"Origin": account.on.url}
    with account.client() as browser:
        for elsewhere in ("https://example.org/", "//example.org/", "/\\example.org", "/\t/example.org", ""):
            answer = browser.post("/login", data={"token": account.token, "next": elsewhere}, headers=own)
            assert (answer.status_code, answer.headers["location"]) == (303, "/deployments")
        page = browser.get("/login", params={"next": '/"><script>'})
        assert "<script>" not in page.text


def test_where_no_token_is_asked_for_one_that_is_none_is_refused_and_a_consent_makes_the_first(tmp_path: Path) -> None:
    with running(tmp_path) as on:
        account = Account(on, "")
        assert "401" in account.login("any").stderr + account.login("any").stdout
        with account.client() as browser:
            assert browser.get("/api/v1/auth/current").json()["name"] == "torpor"
            code = browser.get("/api/v1/auth/code").json()["code"]
            assert "From the first one on everybody does" in browser.get(f"/api_tokens?code={code}").text
            foreign = {"Origin": "http://evil.example"}
            assert browser.post("/api_tokens", data={"code": code}, headers=foreign).status_code == 403
            assert browser.post("/api_tokens", data={"code": code}, headers={"Origin": on.url}).status_code == 200
            token = browser.get("/api/v1/auth/token", params={"code": code}).json()["token"]
            assert browser.get("/api/v1/auth/current").status_code == 401
        assert account.login(token).returncode == 0
