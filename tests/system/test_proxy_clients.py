"""Real clients and real servers on both sides of a proxy: httpx, urllib, websockets, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import uvicorn
import websockets

from router.proxy.limits import Limits
from router.proxy.proxy import Proxy
from tests.shell.fakes.calls import FakeCalls
from tests.shell.fakes.wire import play, until

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


async def application(scope: Event, receive: Receive, send: Send) -> None:
    """Echoes bodies, streams events, and echoes WebSocket messages."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"].upper()})
        return
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-method", scope["method"].encode())]})
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        await send({"type": "http.response.body", "body": event.get("body", b""), "more_body": more})


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, FakeCalls]]:
    """The base URL of an endpoint whose replica is uvicorn, and the engine in front of it."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "e.sock"))
        config = uvicorn.Config(application, uds=path, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.ensure_future(server.serve())
        await until(lambda: server.started)
        calls = FakeCalls(path)
        proxy = Proxy(calls, str(Path(folder, "none.sock")), Limits())
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(proxy.protocol_factory(None), "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/endpoints/e", calls
        finally:
            listener.close()
            await proxy.close(1.0)
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        assert calls.held == 0


def test_httpx_sends_and_receives_bodies_of_every_framing() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"y" * 50_000

    async def scenario() -> None:
        async with served() as (base, calls), httpx.AsyncClient() as client:
            assert (await client.get(base + "/x")).content == b""
            assert (await client.post(base + "/x", json={"a": 1})).json() == {"a": 1}
            assert (await client.put(base + "/x", content=pieces())).content == b"y" * 1_000_000
            assert (await client.head(base + "/x")).headers["x-method"] == "HEAD"
            many = await asyncio.gather(*(client.post(base + "/x", content=b"%d" % n) for n in range(50)))
            assert [answer.content for answer in many] == [b"%d" % n for n in range(50)]
            async with client.stream("GET", base + "/events") as stream:
                assert [line async for line in stream.aiter_lines() if line] == ["data: 0", "data: 1", "data: 2"]
            assert len(calls.settled) == 55

    play(scenario)


def test_urllib_calls_and_gets_its_connection_closed() -> None:
    async def scenario() -> None:
        async with served() as (base, _):
            request = urllib.request.Request(base + "/x", data=json.dumps([1]).encode())

            def call() -> tuple[bytes, str | None]:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.read(), answer.headers["Connection"]

            assert await asyncio.to_thread(call) == (b"[1]", "close")

    play(scenario)


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_websocket_talks_through_and_gives_its_lease_back(size: int) -> None:
    async def scenario() -> None:
        async with served() as (base, calls):
            async with websockets.connect(base.replace("http", "ws", 1) + "/ws") as socket:
                for _ in range(3):
                    await socket.send("a" * size)
                    assert await socket.recv() == "A" * size
                assert calls.held == 1
            await until(lambda: not calls.held)

    play(scenario)


def test_an_absent_control_plane_is_503_and_not_a_hang() -> None:
    async def scenario() -> None:
        async with served() as (base, _), httpx.AsyncClient() as client:
            answer = await client.get(base.replace("/endpoints/e", "/torpor/v1/status"))
            assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")

    play(scenario)
