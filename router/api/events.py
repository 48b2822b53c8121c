"""An answer that goes on while the work does: one JSON object a line, each sent as it is told."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import CancelScope, create_memory_object_stream, create_task_group
from anyio.streams.memory import MemoryObjectSendStream
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from torpor.errors import InternalError, TorporError

log = logging.getLogger("torpor.api")

Event = dict[str, Any]


class Events(Response):
    """`work` is given what takes its events, and returns the last one. A caller who leaves cancels it.

    What it raises is the last line, `error`; when nothing was told before it, it is an answer of its own, with the
    error's status: `refused` makes that.
    """

    media_type = "application/x-ndjson"

    def __init__(
        self, work: Callable[[Callable[[Event], None]], Awaitable[Event]], refused: Callable[[TorporError], Response]
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._work = work
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(self._watch, receive, tasks.cancel_scope)
            told, events = create_memory_object_stream[Event | TorporError](math.inf)
            tasks.start_soon(self._perform, told)
            async with events:
                first = await events.receive()
                if isinstance(first, TorporError):
                    await self._refused(first)(scope, receive, send)
                else:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send(part(first))
                    async for event in events:
                        await send(part(event))
                    await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()

    async def _perform(self, told: MemoryObjectSendStream[Event | TorporError]) -> None:
        with told:
            try:
                told.send_nowait(await self._work(told.send_nowait))
            except TorporError as error:
                told.send_nowait(error)
            except Exception:  # the edge of a request, whose status line may be out already
                log.exception("a deploy failed")
                told.send_nowait(defect())

    async def _watch(self, receive: Receive, scope: CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


def part(event: Event | TorporError) -> dict[str, Any]:
    if isinstance(event, TorporError):
        event = {"event": "error", "status": event.status, **event.body()}
    return {"type": "http.response.body", "body": json.dumps(event).encode() + b"\n", "more_body": True}


def defect() -> InternalError:
    return InternalError(
        "torpor failed at this request\nthe router's log has the reason at " + time.strftime("%H:%M:%S")
    )
