"""The examples, deployed by the command line and called through the proxy by plain HTTP and WebSocket clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from tests.system.running import EXAMPLES, Running, free_port, running
from torpor import Client

LARGE = 64 << 20  # bytes
FLAT = 16 << 20  # bytes that the router may grow by while LARGE goes through it
ADA = {"person": {"name": "Ada", "languages": ["en", "fr"]}}

SLOW = """
import asyncio
import bentoml

@bentoml.service
class Slow:
    @bentoml.api
    async def wait(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With every example deployed; hello-json has a port of its own."""
    with running(tmp_path_factory.mktemp("examples")) as each:
        each.told("deploy", str(EXAMPLES / "hello_json"), "--name", "hello-json", "--port", str(free_port()))
        for folder in ("files", "stream", "mounted_asgi"):
            each.told("deploy", str(EXAMPLES / folder), "--name", folder.replace("_", "-"))
        yield each


@pytest.fixture(scope="module")
def client(platform: Running) -> Iterator[Client]:
    with Client(platform.url, answer_within=60) as each:
        yield each


@pytest.fixture
def http(platform: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.url, timeout=60) as each:
        yield each


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(os.urandom(LARGE))
    return path


def until(happened: Any, within: float = 20) -> None:
    give_up = time.monotonic() + within
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_every_example_is_deployed_here_or_in_the_readme_and_says_what_it_shows() -> None:
    folders = sorted(path.parent.name for path in EXAMPLES.glob("*/service.py"))
    assert folders == ["files", "hello_json", "mounted_asgi", "pdf", "stream"]
    assert "torpor deploy examples/pdf" in (EXAMPLES.parent / "README.md").read_text()  # it wants a container
    for name in folders:
        assert (EXAMPLES / name / "bentofile.yaml").is_file()
        assert (EXAMPLES / name / "service.py").read_text().startswith("# Shows ")


def test_json_by_path_by_own_port_and_by_host(platform: Running, http: httpx.Client, client: Client) -> None:
    own = client.get("hello-json")["own_url"]
    assert own is not None
    for url, headers in (
        (f"{platform.url}/endpoints/hello-json/greet", {}),
        (f"{own}/greet", {}),
        (f"{platform.url}/greet", {"Host": "hello-json.localhost"}),
    ):
        answer = http.post(url, json=ADA, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"text": "Hello, Ada!", "polyglot": True}
        assert answer.headers["x-request-id"]


def test_what_pydantic_refuses_is_400_with_the_place(http: httpx.Client) -> None:
    answer = http.post("/endpoints/hello-json/greet", json={"person": {"name": ""}})
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"] == ["person", "name"]


def test_a_form_of_files_is_answered_by_a_file(http: httpx.Client) -> None:
    parts = [("parts", ("a.txt", b"one ")), ("parts", ("b.txt", b"two"))]
    answer = http.post("/endpoints/files/join", files=parts)
    assert answer.content == b"one two"
    assert answer.headers["content-disposition"] == 'attachment; filename="joined.bin"'


def test_text_arrives_piece_by_piece_and_a_caller_who_leaves_ends_it(http: httpx.Client, client: Client) -> None:
    arguments = {"text": "one two", "pause": 600}
    with http.stream("POST", "/endpoints/stream/words", json=arguments, timeout=10) as answer:
        assert next(answer.iter_text()) == "one "  # the second word is ten minutes away: nothing was kept back
    until(lambda: client.get("stream")["in_flight"] == 0)
    with http.stream("POST", "/endpoints/stream/words", json={"text": "one two three"}) as answer:
        pieces = list(answer.iter_text())
    assert len(pieces) > 1
    assert "".join(pieces) == "one two three "


def test_server_sent_events_keep_their_media_type(http: httpx.Client) -> None:
    with http.stream("POST", "/endpoints/stream/events", json={"upto": 2, "pause": 0}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines == ['data: {"number": 0}', 'data: {"number": 1}', "data: [DONE]"]


def test_a_mounted_application_answers_pages_and_websockets(platform: Running, http: httpx.Client) -> None:
    assert http.get("/endpoints/mounted-asgi/web/page", params={"name": "a b"}).text == "Hello, a b!"
    assert http.post("/endpoints/mounted-asgi/shout", json={"text": "hi"}).text == "HI"

    async def talk(url: str, **options: Any) -> None:
        async with websockets.connect(url, **options) as socket:
            for text in ("one", "two" * 10_000):
                await socket.send(text)
                assert await socket.recv() == text.upper()

    ws = platform.url.replace("http", "ws", 1)
    asyncio.run(talk(f"{ws}/endpoints/mounted-asgi/web/echo"))
    port = int(ws.rpartition(":")[2])
    asyncio.run(talk(f"ws://mounted-asgi.localhost:{port}/web/echo", host="127.0.0.1", port=port))


def test_a_websocket_wakes_a_sleeping_endpoint(platform: Running, client: Client) -> None:
    client.sleep("mounted-asgi", force=True)

    async def talk() -> None:
        url = platform.url.replace("http", "ws", 1) + "/endpoints/mounted-asgi/web/echo"
        async with websockets.connect(url) as socket:
            await socket.send("a")
            assert await socket.recv() == "A"

    asyncio.run(talk())
    assert client.get("mounted-asgi")["cold_starts"] == 1


def test_large_bodies_pass_both_ways_with_the_routers_memory_flat(
    platform: Running, http: httpx.Client, large: Path
) -> None:
    with large.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    http.post("/endpoints/files/join", files=[("parts", b"warm")])
    Path(f"/proc/{platform.pid}/clear_refs").write_text("5")  # proc(5): sets the peak back to what is resident now
    before = peak(platform.pid)
    with large.open("rb") as file:
        answer = http.post("/endpoints/files/digest", content=file)
    assert answer.json() == {"size": LARGE, "sha256": digest}
    arrived = hashlib.sha256()
    with large.open("rb") as file, http.stream("POST", "/endpoints/files/join", files=[("parts", file)]) as download:
        for chunk in download.iter_bytes():
            arrived.update(chunk)
    assert arrived.hexdigest() == digest
    assert peak(platform.pid) - before < FLAT


def peak(pid: int) -> int:
    """The most memory that a process has had resident, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def test_fifty_callers_at_zero_replicas_are_answered_by_one_start(platform: Running, client: Client) -> None:
    client.sleep("hello-json", force=True)
    before = client.get("hello-json")
    assert (before["state"], before["cold_starts"]) == ("asleep", 0)

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=50)) as callers:
            url = f"{platform.url}/endpoints/hello-json/greet"
            return await asyncio.gather(*(callers.post(url, json=ADA) for _ in range(50)))

    answers = asyncio.run(all_at_once())
    assert [answer.status_code for answer in answers] == [200] * 50
    after = client.get("hello-json")
    assert after["cold_starts"] == 1
    assert len(after["replicas"]) == 1
    assert after["calls"] - before["calls"] == 50


def test_a_replica_killed_in_mid_call_is_502_and_the_next_call_works(
    platform: Running, http: httpx.Client, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SLOW)
    platform.told("deploy", str(tmp_path), "--name", "slow")
    answers: list[httpx.Response] = []

    def call() -> None:
        answers.append(http.post("/endpoints/slow/wait", json={"seconds": 600}))

    caller = threading.Thread(target=call)
    caller.start()
    until(lambda: client.get("slow")["in_flight"] == 1)
    os.kill(client.get("slow")["replicas"][0]["pid"] or 0, signal.SIGKILL)
    caller.join(20)
    assert (answers[0].status_code, answers[0].json()["code"]) == (502, "replica_died")
    assert http.post("/endpoints/slow/wait", json={"seconds": 0}).json() == 0
