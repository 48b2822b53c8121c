"""One connection from the router: uvicorn's HTTP protocol with the two rules that make a lease honest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from torpor.host.lane import Lane
from torpor.host.short import Short, ShortCall


class State(ServerState):
    """What the lines share. `default_headers` begins with the Date of now; uvicorn's server wakes ten times a second
    to keep it right, which a replica that nobody calls must not."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._dated: list[tuple[bytes, bytes]] = []
        self._second = 0
        self._head = b""
        super().__init__()
        self.default_headers = headers

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._dated = [(b"date", formatdate(now, usegmt=True).encode()), *self._headers]
            self._head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % each for each in self._dated)
        return self._dated

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._second = 0

    @property
    def head(self) -> bytes:
        """What every answer of 200 begins with."""
        _ = self.default_headers  # of now
        return self._head


class Line(HttpToolsProtocol):
    """Half-closed by a router whose caller has left: the call is told of it, and the line closes when it has ended."""

    def __init__(self, config: Config, state: State, lane: Lane) -> None:
        super().__init__(config, state, {})
        self._lane = lane
        self._state = state
        self._at_head = False
        self._held: tuple[Short, Any, Any] | None = None  # a call for the short way, until its body is complete
        self._serve: Any = self.app
        self.app = self._finish
        self._left = False
        self._running = 0

    def on_headers_complete(self) -> None:
        self._at_head = True
        super().on_headers_complete()
        self._at_head = False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        short = self._lane.short(cycle.scope) if self._at_head and not cycle.waiting_for_100_continue else None
        if short is None:
            super()._start_asgi_task(cycle, app)
        else:
            self._held = short, cycle, app

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._held is not None:
            (short, cycle, app), self._held = self._held, None
            if not ShortCall(short, self, cycle, self._lane).begin():
                super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:  # a body that comes in pieces is read by the whole way
            (_, cycle, app), self._held = self._held, None
            super()._start_asgi_task(cycle, app)

    def began(self, batches: asyncio.Task[None]) -> None:
        """A call of this line is among those that `batches` runs."""
        self._running += 1
        self.flow.resume_reading()  # behind a large body: a caller who leaves is noticed
        if batches not in self.tasks:  # those that a stop waits for
            self.tasks.add(batches)
            batches.add_done_callback(self.tasks.discard)

    def answer(self, cycle: Any, media_type: bytes, body: bytes, named: bytes) -> None:
        """The whole answer of a call that went the short way; `named` are its other headers, each with its line end."""
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        head = b"%bcontent-length: %d\r\ncontent-type: %b\r\n%b%b\r\n"
        self.transport.write(head % (self._state.head, len(body), media_type, named, close) + body)
        if close:
            self.transport.close()
        self.on_response_complete()

    def hand_over(self, cycle: Any, app: Any, over: Callable[[], None]) -> None:
        """A call that went the short way goes the whole one from here on; `over` is called when that has ended."""

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:
                over()

        super()._start_asgi_task(cycle, answer)

    def ended(self) -> None:
        """Nothing runs any more of a call that `began`."""
        self._running -= 1
        if self._left and self._running == 0:
            asyncio.get_running_loop().call_soon(self._hang_up)

    def eof_received(self) -> bool:  # type: ignore[override]  # True keeps our half open
        self._left = True
        if self._running == 0:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()
        return True

    async def _finish(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._running += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self.ended()

    def _hang_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
