"""The application of a replica: a lean lane for JSON and arrays in front of BentoML's own application.

The lean lane runs BentoML's endpoint code (`ServiceAppFactory.api_endpoint_wrapper`) without the middleware around it.
What it does not know (files, forms, mounted applications, task routes, WebSockets, pages, a service with middleware or
tracing of its own) goes to BentoML's application, which is built at the first such call. Written against BentoML
1.4.39, `_bentoml_impl/server/app.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable

from _bentoml_sdk.io_models import IterableResponse
from bentoml._internal.context import trace_context
from bentoml._internal.utils.uri import join_paths
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor.host.factory import INNER, OUTCOME, Factory, Inner, Outcome
from torpor.host.short import JSON, Short
from torpor.host.work import WORK, Work

log = logging.getLogger("uvicorn.error")

WORKS_ON = 0.01  # seconds that work may go on behind a complete answer without being told

# Media types whose bodies BentoML reads whole and parses as one object.
LEAN = frozenset((b"", b"application/json", b"text/plain", b"application/vnd.bentoml+numpy"))


class Lane:
    """The ASGI application. `busy` is told the number of calls whose answer is complete and whose work is not."""

    def __init__(self, factory: Factory, busy: Callable[[int], None]) -> None:
        self.factory = factory
        self._busy = busy
        self._tasks = 0
        service = factory.service
        self._lean = {
            join_paths(service.path_prefix, method.route).encode(): name for name, method in service.apis.items()
        }
        if not factory.plain:
            self._lean = {}
        self._short = {path: Short(factory, name) for path, name in self._lean.items() if Short.serves(factory, name)}
        self._timeout: float | None = factory.timeout
        self._whole: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.whole(scope, receive, send)
        complete: Complete | None = None

        async def counted(message: Message) -> None:
            nonlocal complete
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = Complete(self._count)

        work = Work()
        token = WORK.set(work)
        try:
            name = self._lean.get(scope["raw_path"]) if scope["method"] == "POST" else None
            if name is not None and media_type(scope) in LEAN:
                await self._timed(name, scope, receive, counted, work)
            else:
                await self._held(scope, receive, counted, work)
        except Exception:  # the edge of a call: a mounted application raises after it has answered 500
            if complete is None:
                raise
            # uvicorn would close the connection, on which the router may have sent its next request already.
            log.exception("Exception in ASGI application")
        finally:
            WORK.reset(token)
            await work.ended()
            if complete is not None:
                complete.over()

    def short(self, scope: Scope) -> Short | None:
        """The short way of a request's method, where there is one for it."""
        short = self._short.get(scope["raw_path"]) if scope["method"] == "POST" else None
        return short if short is not None and media_type(scope) in JSON else None

    def with_outcome(self, outcome: Outcome) -> ASGIApp:
        """Answers a call whose batch has ended."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            OUTCOME.set(outcome)
            await self(scope, receive, send)

        return answer

    def too_late(self, work: Work) -> ASGIApp:
        """Answers a call whose deadline has passed, and ends with its work."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await self._too_late(send, work)

        return answer

    @property
    def whole(self) -> ASGIApp:
        """BentoML's own application, over the instance that runs already."""
        if self._whole is None:
            self._whole = self.factory()
        return self._whole

    async def _held(self, scope: Scope, receive: Receive, send: Send, work: Work) -> None:
        """BentoML's application. An answer that overtakes what is still running (its 504) is held open meanwhile."""
        inner = Inner()
        token = INNER.set(inner)
        late = False
        last: Message | None = None

        async def hold_last(message: Message) -> None:
            nonlocal late, last
            if message["type"] == "http.response.start":
                late = inner.overtaken
                if late:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            elif late and last is None and not message.get("more_body", False):
                last = {"type": "http.response.body", "body": b"", "more_body": False}
                message = {**message, "more_body": True}
            await send(message)

        try:
            await self.whole(scope, receive, hold_last)
        finally:
            INNER.reset(token)
            if last is not None:
                await inner.over.wait()
                await work.ended()
                await send(last)

    async def _timed(self, name: str, scope: Scope, receive: Receive, send: Send, work: Work) -> None:
        """A lean call with BentoML's deadline: at most `timeout` seconds until its answer begins, else 504.

        The 504 carries `Connection: close` and the connection stays until the method has ended (docs/protocols.md).
        """
        if self._timeout is None:
            return await self._call(name, scope, receive, send)
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[bool] = loop.create_future()  # False: too late

        async def begin(message: Message) -> None:
            if not begun.done():
                begun.set_result(True)
            await send(message)

        call = loop.create_task(self._call(name, scope, receive, begin))
        timer = loop.call_later(self._timeout, _settle, begun, False)
        call.add_done_callback(lambda _: _settle(begun, True))
        try:
            if await begun:
                return await call
        finally:
            timer.cancel()
        call.cancel()
        work.add(call)
        await self._too_late(send, work)

    async def _too_late(self, send: Send, work: Work) -> None:
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
        await work.ended()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _call(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive, send)
        trace_context.request_id = random.getrandbits(
            64
        )  # what BentoML's tracing gives each call, answered as a header
        with self.factory.service.context.in_request(request):
            response = await self.factory.api_endpoint_wrapper(name, request)
            response.headers.append("server-timing", f"infer;dur={(time.perf_counter() - started) * 1000:.2f}")
            if isinstance(response, IterableResponse):
                await in_one_piece(response, send)
            else:
                await response(scope, receive, send)

    def _count(self, more: int) -> None:
        self._tasks += more
        self._busy(self._tasks)


class Complete:
    """A call whose answer is complete. Told when its work goes on a while, and then again when that is over."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._late = False
        self._timer = asyncio.get_running_loop().call_later(WORKS_ON, self._tell)

    def over(self) -> None:
        self._timer.cancel()
        if self._late:
            self._count(-1)

    def _tell(self) -> None:
        self._late = True
        self._count(1)


async def in_one_piece(response: IterableResponse, send: Send) -> None:
    """An answer that is there already, without a message for each of its parts and one for its end."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": b"".join(response.body_iterator), "more_body": False})
    if response.background is not None:
        await response.background()


def _settle(begun: asyncio.Future[bool], in_time: bool) -> None:
    if not begun.done():
        begun.set_result(in_time)


def media_type(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-type":
            return bytes(value.partition(b";")[0].strip().lower())
    return b""
