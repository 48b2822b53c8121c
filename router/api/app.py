"""The control plane: `/torpor/v1` and the quiet reads of every endpoint, as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

import torpor
from router.api.cloud.shapes import sentence
from router.api.events import defect
from router.api.garbage import GarbageRoutes
from router.api.guard import check_source
from router.api.metrics import MEDIA_TYPE, Metrics
from router.api.read import read_flag, read_tail
from router.api.revisions import Archive, RevisionRoutes
from router.api.secrets import SecretRoutes
from router.api.session import Sessions
from router.api.tokens import TokenRoutes
from router.api.views import Views
from router.core.settings import Settings
from router.garbage import Garbage
from router.launch.logs import Logs
from router.launch.machine import memory
from router.shell.deploys import Deploys
from router.shell.door import Door
from router.shell.engine import Engine
from router.shell.repositories import Repositories
from router.shell.secrets import Secrets
from torpor.errors import NotFound, TorporError
from torpor.wire import API, CLOUD_PATHS, ENDPOINTS, KNOWN, RETRY_AFTER_MAX, State

log = logging.getLogger("torpor.api")

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # an endpoint's own 405 is not the router's

REASON_MAX = 100  # characters of why a WebSocket is closed: a frame has room for 123 bytes
FOLLOW_EVERY = 0.2  # seconds between two looks at a log that is followed


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The application's routes over the parts that they ask."""

    engine: Engine
    deploys: Deploys
    repositories: Repositories
    logs: Logs
    views: Views
    metrics: Metrics
    door: Door
    defaults: Settings
    opens: bool  # `access: false` opens an endpoint to everybody
    domain: str | None
    data: str
    started_at: float
    garbage: Garbage
    archive: Archive
    sessions: Sessions
    secrets: Secrets
    cloud: Sequence[BaseRoute] = ()  # BentoCloud's API, and the pages

    def app(self) -> ASGIApp:
        tokens = TokenRoutes(self.door)
        revisions = RevisionRoutes(
            deploys=self.deploys,
            catalog=self.engine.catalog,
            archive=self.archive,
            views=self.views,
            defaults=self.defaults,
            opens=self.opens,
            creator_of=self.sessions.name,
            refused=answer,
        )
        routes = [
            *(Route(path, healthy) for path in ("/healthz", "/livez", "/readyz")),
            Route("/metrics", self.scrape),
            Route(f"{API}/status", self.status),
            route(f"{API}/endpoints", GET=self.endpoints, POST=revisions.deploy),
            route(f"{API}/endpoints/{{name}}", GET=self.show, DELETE=self.remove),
            Route(f"{API}/endpoints/{{name}}/wake", self.wake, methods=["POST"]),
            Route(f"{API}/endpoints/{{name}}/sleep", self.sleep, methods=["POST"]),
            Route(f"{API}/endpoints/{{name}}/logs", self.log, methods=["GET"]),
            *revisions.routes(),
            Route(f"{KNOWN}/{{name}}", slashed, methods=METHODS),
            Route(f"{KNOWN}/{{name}}/{{path:path}}", self.known, methods=METHODS),
            route(f"{API}/tokens", GET=tokens.list, POST=tokens.create),
            Route(f"{API}/tokens/{{token}}", tokens.revoke, methods=["DELETE"]),
            route(f"{API}/bentos/{{name}}/{{version}}", GET=self.has_bento, PUT=self.put_bento),
            Route(f"{API}/gc", GarbageRoutes(self.garbage, self.repositories).gc, methods=["POST"]),
            *SecretRoutes(self.secrets, self.sessions).routes(),
            *self.cloud,
        ]
        faults: dict[Any, Any] = {TorporError: told, HTTPException: unrouted, Exception: unexpected}
        return self._front(Starlette(routes=routes, exception_handlers=faults))

    def _front(self, app: ASGIApp) -> ASGIApp:
        """Before the routes: where the request comes from. A page of another site has no token to send."""

        async def front(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                if not self.door.asks:
                    check_source(scope, dict(scope["headers"]).get(b"host", b""), self.domain)
            except TorporError as error:
                if scope["type"] == "websocket":
                    return await WebSocketClose(1008, error.message)(scope, receive, send)
                shape = sentence if scope["path"].startswith(CLOUD_PATHS) else answer
                return await shape(error)(scope, receive, send)
            return await app(scope, receive, send)

        return front

    async def known(self, request: HTTPRequest) -> Response:
        """What is known without a replica: a sleeping endpoint is healthy, its schema is that of its first start."""
        name, path = request.path_params["name"], request.path_params["path"]
        entry = self.engine.catalog.named(name)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("Method Not Allowed", 405, {"Allow": "GET, HEAD"})  # as BentoML answers
        if path.endswith("schema.json"):
            return JSONResponse(entry.learned.schema)
        if path.endswith("metrics"):
            return Response(self.metrics.one(name), media_type=MEDIA_TYPE)
        return PlainTextResponse("\n")

    async def scrape(self, request: HTTPRequest) -> Response:
        return Response(await self.metrics.all(), media_type=MEDIA_TYPE)

    async def status(self, request: HTTPRequest) -> Response:
        schedule = self.engine.schedule
        return JSONResponse(
            {
                "version": torpor.__version__,
                "pid": os.getpid(),
                "started_at": self.started_at,
                "data": self.data,
                "endpoints": len(self.engine.catalog.endpoints),
                "replicas": sum(r.state is not State.STOPPED for r in schedule.replicas.values()),
                "memory": await asyncio.to_thread(memory, os.getpid()),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "tasks": len(asyncio.all_tasks()),
            }
        )

    async def endpoints(self, request: HTTPRequest) -> Response:
        return JSONResponse({"endpoints": self.views.all()})

    async def show(self, request: HTTPRequest) -> Response:
        return JSONResponse(self.views.endpoint(request.path_params["name"]))

    async def remove(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        view = self.views.endpoint(name)
        await self.deploys.remove(name)
        return JSONResponse(view)

    async def wake(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        self.engine.catalog.named(name)
        await self.engine.wake(name)
        return JSONResponse(self.views.endpoint(name))

    async def sleep(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        self.engine.catalog.named(name)
        await self.engine.sleep(name, read_flag(request, "force"))
        return JSONResponse(self.views.endpoint(name))

    async def log(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        self.engine.catalog.named(name)
        lines, follow = read_tail(request), read_flag(request, "follow")
        return StreamingResponse(self._lines(name, lines, follow), media_type="text/plain; charset=utf-8")

    async def _lines(self, name: str, lines: int, follow: bool) -> AsyncIterator[str]:
        """Ends with the endpoint, or with the router."""
        seen = await asyncio.to_thread(self.logs.ends, name)
        for text in await asyncio.to_thread(self.logs.tail, name, lines):
            yield text + "\n"
        while follow and name in self.engine.catalog.endpoints and not self.engine.schedule.closing:
            await asyncio.sleep(FOLLOW_EVERY)
            for text in await asyncio.to_thread(lambda: list(self.logs.follow(name, seen))):
                yield text + "\n"

    async def has_bento(self, request: HTTPRequest) -> Response:
        tag = "{name}:{version}".format(**request.path_params)
        await self.repositories.bento(tag)
        return JSONResponse({"bento": tag})

    async def put_bento(self, request: HTTPRequest) -> Response:
        name, version = request.path_params["name"], request.path_params["version"]
        return JSONResponse({"bento": (await self.repositories.deposit(name, version, request.stream())).tag})


def route(path: str, **by_method: Callable[[HTTPRequest], Awaitable[Response]]) -> Route:
    """One route for all methods of a path, so that a 405 names them all."""

    async def chosen(request: HTTPRequest) -> Response:
        return await by_method["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, chosen, methods=list(by_method))


def answer(error: TorporError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(min(RETRY_AFTER_MAX, error.retry_after)))
    return JSONResponse(error.body(), error.status, headers)


async def slashed(request: HTTPRequest) -> Response:
    """An endpoint was named without the slash after it: with it, links of its pages lead to it."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{ENDPOINTS}/{request.path_params['name']}/{query}", 308)


async def healthy(request: HTTPRequest) -> Response:
    return PlainTextResponse("\n")


async def told(request: HTTPConnection, error: TorporError) -> Response | None:
    if isinstance(request, WebSocket):
        await request.close(1008, error.sentence()[:REASON_MAX])
        return None
    return sentence(error) if of_cloud(request) else answer(error)


def of_cloud(request: HTTPConnection) -> bool:
    """Whether it speaks BentoCloud's API, whose errors are text."""
    return request.url.path.startswith(CLOUD_PATHS)


async def unrouted(request: HTTPRequest, error: HTTPException) -> Response:
    missing = NotFound(
        f"{request.method} {request.url.path} is nothing that torpor answers\n"
        f"endpoints are called at /endpoints/<name>/..., the control plane is at {API}"
    )
    if of_cloud(request):
        return PlainTextResponse(missing.sentence(), error.status_code, error.headers)
    return JSONResponse(missing.body(), error.status_code, error.headers)


async def unexpected(request: HTTPRequest, error: Exception) -> Response:
    log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    return sentence(defect()) if of_cloud(request) else answer(defect())
