"""An application mounted into a service, with a WebSocket, a middleware, CORS and a start-up of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket


class Stamp:
    """A middleware as a service adds one."""

    def __init__(self, app: ASGIApp, value: str) -> None:
        self._app = app
        self._value = value.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-stamp", self._value)]
            await send(message)

        await self._app(scope, receive, stamped)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.opened = True
    yield


async def info(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "path": request.url.path,
            "query": request.url.query,
            "opened": getattr(request.app.state, "opened", False),
            "body": (await request.body()).decode(),
            "method": request.method,
        },
        headers={"X-Own": "mounted"},
    )


async def ticks(request: Request) -> StreamingResponse:
    return StreamingResponse(iter(["one ", "two"]), media_type="text/plain")


async def breaks(request: Request) -> JSONResponse:
    raise ValueError("in the mounted application")


async def echo(socket: WebSocket) -> None:
    await socket.accept(subprotocol=socket.headers.get("sec-websocket-protocol"))
    async for text in socket.iter_text():
        if text == "close":
            await socket.close(4001, "asked to")
            return
        if text == "bytes":
            await socket.send_bytes(b"\x00\x01")
        else:
            await socket.send_text(text.upper())


application = Starlette(
    routes=[
        Route("/info", info, methods=["GET", "POST", "PUT", "DELETE"]),
        Route("/ticks", ticks),
        Route("/breaks", breaks),
        WebSocketRoute("/echo", echo),
    ],
    lifespan=lifespan,
)


@bentoml.service(
    http={"cors": {"enabled": True, "access_control_allow_origins": ["https://a.example"]}},
)
@bentoml.asgi_app(application, path="/chat")
class Mounted:
    @bentoml.api
    def hello(self, name: str = "you") -> dict[str, Any]:
        return {"hello": name}


Mounted.add_asgi_middleware(Stamp, value="stamped")  # type: ignore[attr-defined]  # what the decorator made of it
