"""Batching without a timer to set: what arrived while the previous batch ran is the next batch.

Callers who have their answers call again at once where many share few connections. So the next batch waits for them, a
small part of the time that the last one took, where measurements say that the larger batch is the cheaper one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from torpor.host.pay import Pay
from torpor.host.work import WORK

TURNS = 2  # of the loop: one reads what has come, one runs the calls that it has made
AGAIN = 0.1  # of the time that a batch took: how long the next one waits for the callers whom it has answered

Infer = partial[Awaitable[Sequence[Any]]]


class Call(Protocol):
    """What a batch asks of each of its calls. `infer` carries the call's other arguments: only calls with the same
    ones share a batch."""

    value: Any
    infer: Infer

    @property
    def gone(self) -> bool: ...
    def context(self) -> Context: ...
    def begun(self, job: asyncio.Task[None]) -> None: ...
    def answered(self, result: Any) -> None: ...
    def failed(self, error: Exception) -> None: ...


class Waiting:
    """The input of a call that awaits its answer in a task of its own."""

    def __init__(self, value: Any, infer: Infer) -> None:
        self.value = value
        self.infer = infer
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._context = copy_context()
        self._work = WORK.get()

    @property
    def gone(self) -> bool:
        return self.answer.done()

    def context(self) -> Context:
        return self._context

    def begun(self, job: asyncio.Task[None]) -> None:
        if self._work is not None:
            self._work.add(job)

    def answered(self, result: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Batches:
    """Stands where BentoML has its CorkDispatcher: `batches(infer)(value)` is the value's own result.

    `size_of` counts a value's items, `result_size_of` those of its result; a batch holds at most `max_batch_size` of
    them, and no more than pay, or one larger value alone. It runs in the context of its first call, where BentoML keeps
    request and response. A batch that has begun is part of the work of each of its calls.
    """

    def __init__(
        self, max_batch_size: int, size_of: Callable[[Any], int], result_size_of: Callable[[Any], int]
    ) -> None:
        self.pay = Pay(max_batch_size)
        self._size_of = size_of
        self._result_size_of = result_size_of
        self._queue: deque[tuple[Call, int]] = deque()
        self._items = 0  # in the queue
        self._running: asyncio.Task[None] | None = None
        self._expected = 0  # items, once everybody has come back whom the last batch answered
        self._until = 0.0  # when the next batch waits for them no longer
        self._enough: asyncio.Future[None] | None = None

    def __call__(self, infer: Infer) -> Callable[[Any], Awaitable[Any]]:
        return partial(self._join, infer)

    async def _join(self, infer: Infer, value: Any) -> Any:
        call = Waiting(value, infer)
        self.add(call)
        return await call.answer

    def add(self, call: Call) -> asyncio.Task[None]:
        """The task that runs this call's batch and those before it."""
        size = self._size_of(call.value)
        self._queue.append((call, size))
        self._items += size
        if self._enough is not None and self._items >= self._expected:
            _end(self._enough)
        if self._running is None:
            self._running = asyncio.create_task(self._run(), context=Context())
        return self._running

    async def _run(self) -> None:
        try:
            while True:
                # What the last poll brought is read first: calls that came together are one batch.
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                await self._gather()
                if not (batch := self._next()):
                    return
                job = asyncio.create_task(self._infer(batch), context=batch[0][0].context())
                for call, _ in batch:
                    call.begun(job)
                await job
        finally:
            self._running = None

    async def _gather(self) -> None:
        """Waits for the callers whom the last batch answered, as long as that may pay."""
        left = self._until - time.perf_counter()
        if left <= 0 or not self._queue or not self.pay.is_worth(self._items, self._expected):
            return
        loop = asyncio.get_running_loop()
        self._enough = loop.create_future()
        timer = loop.call_later(left, _end, self._enough)
        try:
            await self._enough
        finally:
            timer.cancel()
            self._enough = None

    def _next(self) -> list[tuple[Call, int]]:
        batch: list[tuple[Call, int]] = []
        held = 0
        most = self.pay.most() if self._queue else 0
        while self._queue:
            call, size = self._queue[0]
            if not call.gone:
                alike = not batch or call.infer.keywords == batch[0][0].infer.keywords
                if batch and (not alike or held + size > most):
                    break
                batch.append((call, size))
                held += size
            self._queue.popleft()
            self._items -= size
        return batch

    async def _infer(self, batch: list[tuple[Call, int]]) -> None:
        try:
            begun = time.perf_counter()
            results = await batch[0][0].infer([call.value for call, _ in batch])
            self._learn(sum(size for _, size in batch), time.perf_counter() - begun)
            self._check(batch, results)
        except Exception as error:  # the edge of a task: the service's error is each caller's answer
            for call, _ in batch:
                call.failed(error)
            return
        for (call, _), result in zip(batch, results, strict=True):
            call.answered(result)
        self._until += time.perf_counter()

    def _learn(self, items: int, seconds: float) -> None:
        self.pay.learn(items, seconds)
        self._expected = items + self._items
        self._until = AGAIN * seconds

    def _check(self, batch: list[tuple[Call, int]], results: Sequence[Any]) -> None:
        """Raises ValueError where a caller could get a part of another's result. One alone gets whatever came."""
        if len(results) != len(batch):
            raise ValueError(f"the method returned {len(results)} results for a batch of {len(batch)}")
        if len(batch) > 1:
            wanted, came = [size for _, size in batch], [self._result_size_of(result) for result in results]
            if wanted != came:
                raise ValueError(f"the method returned {sum(came)} results for a batch of {sum(wanted)} items")


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
