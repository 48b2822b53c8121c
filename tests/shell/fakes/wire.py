"""Both ends of a proxy over real sockets: a caller who writes raw bytes, and a replica who is scripted."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from router.proxy.calls import Traces
from router.proxy.limits import Limits
from router.proxy.proxy import Proxy
from tests.shell.fakes.calls import FakeCalls

PATIENCE = 20.0  # seconds until a scenario that hangs is a failure


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario on the router's own event loop."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario()

    uvloop.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop run until something holds; `play` bounds it."""
    while not true():  # noqa: ASYNC110 - what is waited for is another party's plain state
        await asyncio.sleep(0.002)


@dataclass
class Message:
    """One request or answer as it was read from a socket."""

    start: bytes
    headers: dict[str, str]
    body: bytes = b""
    lines: list[bytes] = field(default_factory=list)  # header lines as they came
    trailers: list[bytes] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])


class Line:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Message:
        block = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = block[:-4].split(b"\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            key = name.lower()
            headers[key] = headers[key] + ", " + value.strip() if key in headers else value.strip()
        return Message(start, headers, lines=lines)

    async def chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
        if not size:
            return b""
        payload = await self.reader.readexactly(size + 2)
        return payload[:-2]

    async def message(self, *, bodiless: bool = False) -> Message:
        """A whole request or answer."""
        message = await self.head()
        headers, answer = message.headers, message.start.startswith(b"HTTP/")
        if bodiless or (answer and message.status in (204, 304)):
            return message
        if headers.get("transfer-encoding") == "chunked":
            while payload := await self.chunk():
                message.body += payload
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                message.trailers.append(line[:-2])
        elif "content-length" in headers:
            message.body = await self.reader.readexactly(int(headers["content-length"]))
        elif answer:
            message.body = await self.reader.read()
        return message

    async def ended(self) -> bool:
        """True when the other side closes or resets without another byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        """A reset: what is unsent or unread is gone."""
        if self.writer.is_closing():
            return
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Line], Awaitable[None]]


class Upstream:
    """A replica on a Unix socket: the script plays each connection; `requests` is what was read through `take`."""

    def __init__(self, path: str, script: Script) -> None:
        self.path = path
        self.script = script
        self.requests: list[Message] = []
        self.lines: list[Line] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._play, self.path, limit=1 << 20)

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self.lines.append(line)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.script(line)
        await line.close()

    async def take(self, line: Line) -> Message:
        request = await line.message()
        self.requests.append(request)
        return request

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for line in self.lines:
            line.abort()


@dataclass
class Stage:
    """A proxy between the two."""

    proxy: Proxy
    calls: FakeCalls
    upstream: Upstream
    control: Upstream
    port: int
    own_port: int

    async def caller(self, port: int | None = None) -> Line:
        return Line(*await asyncio.open_connection("127.0.0.1", port or self.port, limit=1 << 20))

    async def ask(self, request: bytes, *, bodiless: bool = False) -> Message:
        """One request on a connection of its own."""
        line = await self.caller()
        try:
            await line.send(request)
            return await line.message(bodiless=bodiless)
        finally:
            await line.close()


async def echo(upstream: Upstream, line: Line) -> None:
    """Answers every request with its own body."""
    while True:
        request = await upstream.take(line)
        body = b"" if request.start.startswith(b"HEAD ") else request.body
        length = len(request.body)
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (length, body))


@asynccontextmanager
async def stage(
    script: Script | None = None, limits: Limits | None = None, traces: Traces | None = None
) -> AsyncIterator[Stage]:
    """Ends with every lease settled, or fails."""
    with TemporaryDirectory() as folder:
        path, control_path = str(Path(folder, "e.sock")), str(Path(folder, "control.sock"))
        upstream = Upstream(path, script or (lambda line: echo(upstream, line)))
        control = Upstream(control_path, lambda line: echo(control, line))
        await upstream.open()
        await control.open()
        calls = FakeCalls(path)
        proxy = Proxy(calls, control_path, limits or Limits(), traces)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(proxy.protocol_factory(None), "127.0.0.1", 0)
        own = await loop.create_server(proxy.protocol_factory(7301), "127.0.0.1", 0)
        port, own_port = (each.sockets[0].getsockname()[1] for each in (server, own))
        try:
            yield Stage(proxy, calls, upstream, control, port, own_port)
        finally:
            server.close()
            own.close()
            await proxy.close(0.0)
            await upstream.close()
            await control.close()
        assert calls.held == 0
        assert not calls.waiting
