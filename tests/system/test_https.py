"""HTTPS and tokens with real clients: curl, httpx, websockets, the SDK and the command line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import websockets
from cryptography import x509

from tests.system import handmade
from tests.system.authority import Authority
from tests.system.running import TORPOR, WITHIN, Running, clean_environment, free_port, running
from torpor import Client
from torpor.cli.platform import answers, down, read_address
from torpor.errors import Forbidden, PlatformUnreachable, Unauthorized

SERVICE = """
import bentoml
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

async def shout(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())

async def echo(request):
    return Response(await request.body())

app = Starlette(routes=[WebSocketRoute("/ws", shout), Route("/echo", echo, methods=["POST"])])

@bentoml.service
@bentoml.asgi_app(app, path="/app")
class Hello:
    @bentoml.api
    def hi(self, name: str) -> dict:
        return {"hello": name}

    @bentoml.api
    def count(self, upto: int):
        for number in range(upto):
            yield f"{number}\\n"

    @bentoml.api
    def authorization(self, ctx: bentoml.Context) -> str:
        return str(ctx.request.headers.get("authorization"))
"""
LARGE = 20_000_000


@dataclass(frozen=True)
class Secure:
    """A platform with a certificate of `authority`, that asks for tokens; `token` may do everything."""

    platform: Running
    authority: Authority
    token: str
    port: int  # the endpoint's own

    @property
    def url(self) -> str:
        return self.platform.url

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self, token: str | None = None) -> Client:
        return Client(self.url, token=token or self.token, verify=self.authority.file)

    def curl(self, *arguments: str, token: str | None = None) -> str:
        config = f'header = "Authorization: Bearer {token or self.token}"'  # a process list is no place for it
        line = ["curl", "-sS", "--cacert", str(self.authority.file), "-K", "-", *arguments]
        return subprocess.run(line, input=config, capture_output=True, text=True, check=True, timeout=WITHIN).stdout

    def serial(self) -> int:
        """Of the certificate that a new connection is shown."""
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        line = socket.create_connection((host, int(port)))
        with self.context.wrap_socket(line, server_hostname=host) as shown:
            found = shown.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found).serial_number

    def logged(self) -> str:
        return (self.platform.data / "router.log").read_text()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority(folder, "authority")
    cert, key, _ = authority.issue("first")
    config = folder / "torpor.toml"
    config.write_text(f'tls_cert = "{cert}"\ntls_key = "{key}"\nauth = "on"\n')
    made = subprocess.run(
        [TORPOR, "tokens", "create", "root", "--scope", "admin"],
        env=clean_environment(folder), capture_output=True, text=True, check=True, timeout=WITHIN,
    )  # fmt: skip
    with running(folder, "--config", str(config)) as platform:
        found = Secure(platform, authority, made.stdout.strip(), free_port())
        with httpx.Client(base_url=found.url, verify=found.context, headers=found.headers, timeout=WITHIN) as http:
            tar = handmade.bento("hello", SERVICE)
            assert http.put("/torpor/v1/bentos/hello/1", content=tar).status_code == 200
            body = {"name": "hello", "bento": "hello:1", "settings": {"port": found.port, "sleep": "deep"}}
            told = http.post("/torpor/v1/endpoints", json=body).text
            assert json.loads(told.splitlines()[-1])["event"] == "deployed", told
        yield found


def test_curl_wakes_an_endpoint_over_https(secure: Secure) -> None:
    with secure.client() as client:
        client.sleep("hello", force=True)
    head, _, body = secure.curl(
        "-i", "--json", '{"name": "curl"}', f"{secure.url}/endpoints/hello/hi"
    ).partition("\n\n")  # fmt: skip
    assert "x-torpor-cold-start: true" in head.lower()
    assert json.loads(body) == {"hello": "curl"}
    assert secure.curl("--json", '{"name": "own"}', f"https://localhost:{secure.port}/hi") == '{"hello": "own"}'


def test_the_client_calls_streams_and_reads_the_view_with_a_token_for_one_endpoint(secure: Secure) -> None:
    with secure.client() as admin:
        assert admin.get("hello")["url"] == f"{secure.url}/endpoints/hello"
        assert str(admin.get("hello")["own_url"]).startswith("https://")
        token = admin.create_token("caller", ["call:hello"], 3600.0)["token"]
    with secure.client(token) as client:
        hello = client.endpoint("hello")
        assert hello.hi(name="sdk") == {"hello": "sdk"}
        assert "".join(hello.count(upto=3)) == "0\n1\n2\n"
        assert hello.authorization() == "None"
        for refused in (client.status, client.list, client.tokens, lambda: client.delete("hello")):
            with pytest.raises(Forbidden, match="the scope admin"):
                refused()
    with secure.client("tp_" + "x" * 43) as stranger, pytest.raises(Unauthorized):
        stranger.endpoint("hello").hi(name="nobody")


def test_a_large_body_goes_through_and_a_large_refused_one_hears_why(secure: Secure) -> None:
    body = os.urandom(LARGE)
    url = f"{secure.url}/endpoints/hello/app/echo"
    with httpx.Client(verify=secure.context, timeout=WITHIN) as http:
        assert http.post(url, content=body, headers=secure.headers).content == body
        answer = http.post(url, content=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_a_websocket_talks_over_tls_and_needs_a_token(secure: Secure) -> None:
    url = secure.url.replace("https", "wss", 1) + "/endpoints/hello/app/ws"

    async def scenario() -> None:
        async with websockets.connect(url, ssl=secure.context, additional_headers=secure.headers) as line:
            for size in (1, 300_000):
                await line.send("a" * size)
                assert await line.recv() == "A" * size
        with pytest.raises(websockets.InvalidStatus, match="401"):
            await websockets.connect(url, ssl=secure.context)

    asyncio.run(scenario())


def test_who_does_not_trust_the_authority_does_not_call(secure: Secure, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    for verify in (other.file, None):
        client = Client(secure.url, token=secure.token, verify=verify)
        with client, pytest.raises(PlatformUnreachable, match="is not trusted"):
            client.status()
    env = secure.platform.env | {"TORPOR_TOKEN": secure.token}
    for cacert, code in ((other.file, 6), (secure.authority.file, 0)):
        line = [TORPOR, "--cacert", str(cacert), "ls"]
        assert subprocess.run(line, env=env, capture_output=True, timeout=WITHIN).returncode == code
    line = [TORPOR, "ls"]
    named = subprocess.run(line, env=env | {"TORPOR_CACERT": str(secure.authority.file)}, capture_output=True)
    assert named.returncode == 0


def test_older_tls_is_refused(secure: Secure) -> None:
    context = secure.context
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side refuses before it asks
    with pytest.deprecated_call():
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises(PlatformUnreachable, match=r"EOF|alert"),
        Client(secure.url, token=secure.token, verify=context) as client,
    ):
        client.status()


def test_a_new_pair_is_shown_after_sighup_and_a_broken_one_is_not(secure: Secure) -> None:
    first = x509.load_pem_x509_certificate((secure.authority.file.parent / "first.crt").read_bytes())
    cert, key, serial = secure.authority.issue("second")
    assert secure.serial() == first.serial_number
    with httpx.Client(base_url=secure.url, verify=secure.context, headers=secure.headers) as open_before:
        assert open_before.get("/torpor/v1/status").status_code == 200
        live = secure.authority.file.parent
        shutil.copy(cert, live / "first.crt")
        hang_up(secure, "the certificate stays as it was")  # its key is another's
        assert secure.serial() == first.serial_number
        shutil.copy(key, live / "first.key")
        hang_up(secure, "the certificate was read again")
        assert secure.serial() == serial
        assert open_before.get("/torpor/v1/status").json()["pid"] == secure.platform.pid


def hang_up(secure: Secure, says: str) -> None:
    """SIGHUP; returns when the router has told what it did with it."""
    count = secure.logged().count(says)
    os.kill(secure.platform.pid, signal.SIGHUP)
    for _ in range(1000):
        if secure.logged().count(says) > count:
            return
        secure.serial()
    raise AssertionError(f"the router did not say {says!r}")


def test_no_token_is_in_a_file_of_the_platform_or_in_a_process_list(secure: Secure) -> None:
    with secure.client() as client:
        client.wake("hello")
        pids = [client.get("hello")["replicas"][0]["pid"], secure.platform.pid]
    secret = secure.token.encode()
    holding = [p for p in secure.platform.data.rglob("*") if p.is_file() and secret in p.read_bytes()]
    assert holding == []
    for pid in pids:
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


def test_the_first_start_off_the_loopback_shows_one_token_once(tmp_path: Path) -> None:
    env = clean_environment(tmp_path) | {"TORPOR_TOKEN": "tp_" + "s" * 43}
    line = [TORPOR, "up", "--detach", "--host", "0.0.0.0", "--port", "0", "--tls", "self-signed"]
    unseen = subprocess.run(line, env=env, capture_output=True, text=True, timeout=WITHIN)  # nobody would see it
    assert (unseen.returncode, unseen.stderr.splitlines()[1]) == (
        3,
        f"make one: torpor tokens create NAME --scope admin --data {tmp_path / 'data'}",
    )
    started = subprocess.run([*line, "--json"], env=env, capture_output=True, text=True, timeout=WITHIN)
    assert started.returncode == 0, started.stderr
    found = json.loads(started.stdout)
    try:
        cert, key = Path(found["cacert"]), tmp_path / "data" / "tls" / "key.pem"
        assert [stat.S_IMODE(path.stat().st_mode) for path in (cert, key)] == [0o600, 0o600]
        assert found["token"] not in (tmp_path / "data" / "router.log").read_text()
        with Client(found["url"], token=found["token"], verify=cert) as client:
            assert [each["name"] for each in client.tokens()] == ["admin"]
            foreign = {"Host": "models.example", "Origin": "https://models.example"}
            context, bearer = ssl.create_default_context(cafile=cert), {"Authorization": f"Bearer {found['token']}"}
            answer = httpx.get(f"{found['url']}/torpor/v1/status", verify=context, headers=foreign | bearer)
            assert answer.status_code == 200
        mine = env | {"TORPOR_TOKEN": found["token"]}  # the certificate is found by the data folder
        assert subprocess.run([TORPOR, "ls"], env=mine, capture_output=True, timeout=WITHIN).returncode == 0
        ended = subprocess.run([TORPOR, "tokens", "revoke", "admin"], env=env, capture_output=True, timeout=WITHIN)
        assert ended.returncode == 0
        assert b"unauthorized" in subprocess.run([TORPOR, "ls", "--json"], env=mine, capture_output=True).stdout
    finally:
        left = read_address(tmp_path / "data")
        assert left is not None
        assert answers(left)
        down(tmp_path / "data")
    again = subprocess.run([*line, "--json"], env=env, capture_output=True, text=True, timeout=WITHIN)
    assert (again.returncode, "there is none that is valid" in again.stdout) == (3, True)
