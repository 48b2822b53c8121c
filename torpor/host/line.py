"""One connection from the router: uvicorn's HTTP protocol with the two rules that make a lease honest."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


class State(ServerState):
    """What the lines share. `default_headers` begins with the Date of now; uvicorn's server wakes ten times a second
    to keep it right, which a replica that nobody calls must not."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._dated: list[tuple[bytes, bytes]] = []
        self._second = 0
        super().__init__()
        self.default_headers = headers

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._dated = [(b"date", formatdate(now, usegmt=True).encode()), *self._headers]
        return self._dated

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._second = 0


class Line(HttpToolsProtocol):
    """Half-closed by a router whose caller has left: the call is told of it, and the line closes when it has ended."""

    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._serve: Any = self.app
        self.app = self._finish
        self._left = False
        self._running = 0

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
            self._running -= 1
            if self._left and self._running == 0:
                asyncio.get_running_loop().call_soon(self._hang_up)

    def _hang_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
