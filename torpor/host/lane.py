"""The application of a replica: a lean lane for JSON and arrays in front of BentoML's own application.

The lean lane runs BentoML's endpoint code (`ServiceAppFactory.api_endpoint_wrapper`) without the middleware around it.
What it does not know (files, forms, mounted applications, tasks, WebSockets, pages, a service with middleware of its
own) goes to BentoML's application, which is built at the first such call. Written against BentoML 1.4.39,
`_bentoml_impl/server/app.py`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from _bentoml_impl.server.app import ServiceAppFactory
from bentoml._internal.runner.container import AutoContainer
from bentoml._internal.utils.uri import join_paths
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor.host.batch import Batches

# Media types whose bodies BentoML reads whole and parses as one object.
LEAN = frozenset((b"", b"application/json", b"text/plain", b"application/vnd.bentoml+numpy"))

# The work of a call that runs outside of its task (threads, batches) and so survives the task's cancellation.
WORK: ContextVar[set[asyncio.Future[Any]] | None] = ContextVar("work", default=None)


class Factory(ServiceAppFactory):  # type: ignore[misc]  # BentoML is untyped here
    """BentoML's factory with our batches, and with threads that a call can be seen to wait for."""

    def __init__(self, service: Any) -> None:
        super().__init__(service, is_main=True)
        for name in self.dispatchers:
            method = service.apis[name]
            size_of = functools.partial(AutoContainer.get_batch_size, batch_dim=method.batch_dim[0])
            self.dispatchers[name] = Batches(int(method.max_batch_size), size_of)

    async def _to_thread(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        job = asyncio.ensure_future(super()._to_thread(func, *args, **kwargs))
        work = WORK.get()
        if work is not None:
            work.add(job)
            job.add_done_callback(work.discard)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            job.add_done_callback(_heard)
            raise


def _heard(job: asyncio.Future[Any]) -> None:
    """An abandoned thread's exception has nobody to go to."""
    if not job.cancelled():
        job.exception()


class Lane:
    """The ASGI application. `busy` is told the number of calls whose answer is complete and whose work is not."""

    def __init__(self, factory: Factory, busy: Callable[[int], None]) -> None:
        self.factory = factory
        self._busy = busy
        self._tasks = 0
        self._told = 0
        service = factory.service
        config = service.config
        self._lean = {
            join_paths(service.path_prefix, method.route).encode(): name for name, method in service.apis.items()
        }
        plain = not (service.middlewares or service.mount_apps or factory.enable_access_control)
        if not plain or factory.max_concurrency or config.get("traffic", {}).get("external_queue"):
            self._lean = {}
        self._timeout: float | None = factory.timeout
        self._whole: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.whole(scope, receive, send)
        complete = False

        async def counted(message: Message) -> None:
            nonlocal complete
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
                self._tasks += 1
                asyncio.get_running_loop().call_later(0.01, self._tell)

        try:
            name = self._lean.get(scope["raw_path"]) if scope["method"] == "POST" else None
            if name is not None and media_type(scope) in LEAN:
                await self._timed(name, scope, receive, counted)
            else:
                await self._held(scope, receive, counted)
        finally:
            if complete:
                self._tasks -= 1
                if self._told:
                    self._tell()

    @property
    def whole(self) -> ASGIApp:
        """BentoML's own application, over the instance that runs already."""
        if self._whole is None:
            self._whole = self.factory()
        return self._whole

    async def _held(self, scope: Scope, receive: Receive, send: Send) -> None:
        """BentoML's application; returns when the threads that it started have ended too."""
        work: set[asyncio.Future[Any]] = set()
        token = WORK.set(work)
        last: Message | None = None

        async def hold_last(message: Message) -> None:
            nonlocal last
            if message["type"] == "http.response.start" and message["status"] == 504 and work:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            if message["type"] == "http.response.body" and not message.get("more_body", False) and work:
                last = {"type": "http.response.body", "body": b"", "more_body": False}
                message = {**message, "more_body": True}
            await send(message)

        try:
            await self.whole(scope, receive, hold_last)
            if last is not None:
                await _ended(work)
                await send(last)
        finally:
            WORK.reset(token)

    async def _timed(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """A lean call with BentoML's deadline: at most `timeout` seconds until its answer begins, else 504.

        The 504 carries `Connection: close` and the connection stays until the method has ended (docs/protocols.md).
        """
        if self._timeout is None:
            return await self._call(name, scope, receive, send)
        work: set[asyncio.Future[Any]] = set()
        token = WORK.set(work)
        begun = asyncio.get_running_loop().create_future()

        async def begin(message: Message) -> None:
            if not begun.done():
                begun.set_result(None)
            await send(message)

        call = asyncio.ensure_future(self._call(name, scope, receive, begin))
        WORK.reset(token)
        timer = asyncio.get_running_loop().call_later(self._timeout, _cancel, begun)
        call.add_done_callback(lambda _: None if begun.done() else begun.set_result(None))
        try:
            await asyncio.wait((begun,))
            if not begun.cancelled():
                return await call
        finally:
            timer.cancel()
        call.cancel()
        await self._too_late(send, work, call)

    async def _too_late(self, send: Send, work: set[asyncio.Future[Any]], call: asyncio.Future[None]) -> None:
        body = json.dumps(
            {"error": f"Not able to process the request in {self._timeout} seconds"}, separators=(",", ":")
        ).encode()
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 504, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.wait((call,))
        await _ended(work)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _call(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive, send)
        with self.factory.service.context.in_request(request):
            response = await self.factory.api_endpoint_wrapper(name, request)
            response.headers.append("server-timing", f"infer;dur={(time.perf_counter() - started) * 1000:.2f}")
            await response(scope, receive, send)

    def _tell(self) -> None:
        if self._tasks != self._told:
            self._told = self._tasks
            self._busy(self._tasks)


async def _ended(work: set[asyncio.Future[Any]]) -> None:
    while work:
        await asyncio.wait(tuple(work))
        work -= {job for job in work if job.done()}


def _cancel(begun: asyncio.Future[None]) -> None:
    if not begun.done():
        begun.cancel()


def media_type(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value.partition(b";")[0].strip().lower())
    return b""


def in_flight_limit(factory: Factory) -> int | None:
    """How many calls the service takes at once, None for any number; above it BentoML answers 429."""
    limit = factory.max_concurrency
    return int(limit) if limit else None
