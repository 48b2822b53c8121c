"""The short way of a call whose method is batched: from the bytes of its body to those of its answer without a task, a
request or a response of its own. The whole way costs a call of MiniLM a seventh of its time, this one a twentieth.

A batch runs in the context of its first call, so that nobody sees those of the others. What is out of the ordinary (an
input that is not valid, a method that raises, a deadline, a result of another kind, work that the method leaves behind)
goes the whole way, through `Lane`, with the outcome of the batch where there is one. Written against BentoML 1.4.39,
`_bentoml_impl/server/app.py`.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from _bentoml_impl.serde import ALL_SERDE, JSONSerde, Payload
from _bentoml_sdk.io_models import ARGS, KWARGS, IOMixin, IORootModel
from bentoml._internal.context import trace_context
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from torpor.host.batch import Batches, Infer
from torpor.host.factory import Factory, Outcome
from torpor.host.figures import is_plain
from torpor.host.work import Work

if TYPE_CHECKING:
    from torpor.host.line import Line

JSON = frozenset((b"", JSONSerde.media_type.encode()))


class Whole(Protocol):
    """The lane: applications that answer a call the whole way."""

    def with_outcome(self, outcome: Outcome) -> ASGIApp: ...
    def too_late(self, work: Work) -> ASGIApp: ...


class Short:
    """What the calls of one method share."""

    def __init__(self, factory: Factory, name: str) -> None:
        method = factory.service.apis[name]
        self.factory = factory
        self.batches: Batches = factory.dispatchers[name]
        run: Callable[..., Awaitable[Sequence[Any]]] = factory.run_batch
        self.infer: Infer = functools.partial(run, name)
        self._input = method.input_spec
        self._output = method.output_spec
        self._is_root = bool(getattr(self._input, "__root_input__", False))
        self._field = "root" if self._is_root else next(iter(self._input.model_fields))
        self._serde: Any = ALL_SERDE[JSONSerde.media_type]()

    @staticmethod
    def serves(factory: Factory, name: str) -> bool:
        """Whether the method takes one value that is read from JSON, and answers with JSON, in BentoML's own ways."""
        method = factory.service.apis[name]
        given, told = method.input_spec, method.output_spec
        return (
            isinstance(factory.dispatchers.get(name), Batches)
            and method.ctx_param is None
            and not given.multipart_fields
            and [field for field in given.model_fields if field not in (ARGS, KWARGS)] == list(given.model_fields)
            and len(given.model_fields) == 1
            and given.from_http_request.__func__ is IOMixin.from_http_request.__func__
            and issubclass(told, IORootModel)
            and told.to_http_response.__func__ is IOMixin.to_http_response.__func__
        )

    def value(self, body: bytes) -> Any:
        """The method's input. Raises whatever its types and validators raise."""
        given = self._serde.deserialize_model(Payload((body,)), self._input)
        if self._is_root and not isinstance(given, IORootModel):
            return given
        return getattr(given, self._field)

    def body(self, result: Any) -> bytes | None:
        """The result as BentoML writes it; None where that is another way of answering."""
        if not isinstance(result, (np.ndarray, list, dict)) or self._output.mime_type() != JSONSerde.media_type:
            return None
        model = self._output(result)
        if not is_plain(self._output) and isinstance(model.model_dump(), (str, bytes)):
            return None
        return b"".join(self._serde.serialize_model(model).data)


class ShortCall:
    """One call on its line, from its complete body until nothing of it runs any more."""

    def __init__(self, short: Short, line: Line, cycle: Any, whole: Whole) -> None:
        self.infer = short.infer
        self.value: Any = None
        self._short = short
        self._line = line
        self._cycle = cycle
        self._whole = whole
        self._started = time.perf_counter()
        self._id = random.getrandbits(64)
        self._first: First | None = None
        self._job: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.gone = False

    def begin(self) -> bool:
        """Joins the next batch; False where the input is not one to be read here."""
        short = self._short
        try:
            self.value = Context().run(short.value, bytes(self._cycle.body))
        except Exception:  # whatever a validator raises: the whole way says it as BentoML does
            return False
        self._line.began(short.batches.add(self))
        if short.factory.timeout is not None:
            self._timer = self._line.loop.call_later(short.factory.timeout, self._too_late)
        return True

    def context(self) -> Context:
        """Called for the first call of a batch: where the method finds request and response."""
        self._first = First(self._short.factory, self._cycle.scope, bytes(self._cycle.body), self._id)
        return self._first.context

    def begun(self, job: asyncio.Task[None]) -> None:
        self._job = job

    def answered(self, result: Any) -> None:
        if self.gone:
            return
        try:
            body = self._short.body(result)
        except Exception:  # whatever a serialiser raises, likewise
            body = None
        if body is None or (self._first is not None and self._first.left_something()):
            self._end(self._outcome(result=result))
            return
        took = (time.perf_counter() - self._started) * 1000
        headers = b"server: %b\r\nx-bentoml-request-id: %b\r\nserver-timing: infer;dur=%.2f\r\n"
        factory = self._short.factory
        named = headers % (factory.server, factory.written(self._id), took)
        self._line.answer(self._cycle, b"application/json", body, named)
        self._end(None)

    def failed(self, error: Exception) -> None:
        if not self.gone:
            self._end(self._outcome(error=error))

    def _outcome(self, **became: Any) -> Outcome:
        return Outcome(response=None if self._first is None else self._first.response, **became)

    def _end(self, outcome: Outcome | None) -> None:
        self.gone = True
        self.value = None
        if self._timer is not None:
            self._timer.cancel()
        if outcome is not None:
            self._line.hand_over(self._cycle, self._whole.with_outcome(outcome), self._over)
        else:
            self._over()

    def _too_late(self) -> None:
        self.gone = True
        work = Work()
        if self._job is not None:
            work.add(self._job)
        self._line.hand_over(self._cycle, self._whole.too_late(work), self._over)

    def _over(self) -> None:
        if self._first is not None:
            self._first.close()
        self._line.ended()


class First:
    """The first call of a batch: the context in which the batch runs, with what BentoML keeps there of a request."""

    def __init__(self, factory: Factory, scope: Scope, body: bytes, call_id: int) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        self._request = Request({**scope, "state": {}}, receive)
        self._held = factory.service.context.in_request(self._request)
        self.context = Context()
        self.context.run(self._enter, call_id)
        self.response = self.context.run(lambda: factory.service.context.response)

    def _enter(self, call_id: int) -> None:
        trace_context.request_id = call_id
        self._held.__enter__()

    def left_something(self) -> bool:
        """Whether the method left work to be done behind its answer, or files that this work may read."""
        return bool(self.response.background.tasks) or hasattr(self._request.state, "temp_dir")

    def close(self) -> None:
        # Later, because the batch may be running in the context just now.
        asyncio.get_running_loop().call_soon(self._held.__exit__, None, None, None, context=self.context)
