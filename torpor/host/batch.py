"""Batching without a timer: what arrived while the previous batch ran is the next batch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from torpor.host.pay import Pay
from torpor.host.work import WORK, Work

TURNS = 2  # of the loop: one reads what has come, one runs the calls that it has made

Infer = partial[Awaitable[Sequence[Any]]]


@dataclass(slots=True)
class Waiting:
    """One call's input. `infer` carries the call's other arguments: only calls with the same ones share a batch."""

    value: Any
    size: int
    infer: Infer
    answer: asyncio.Future[Any]
    context: Context  # of the call: a batch runs in that of its first, where BentoML keeps request and response
    work: Work | None


class Batches:
    """Stands where BentoML has its CorkDispatcher: `batches(infer)(value)` is the value's own result.

    `size_of` counts a value's items, `result_size_of` those of its result; a batch holds at most `max_batch_size` of
    them, and no more than pay, or one larger value alone. A batch that has begun is part of the work of each of its
    calls.
    """

    def __init__(
        self, max_batch_size: int, size_of: Callable[[Any], int], result_size_of: Callable[[Any], int]
    ) -> None:
        self.pay = Pay(max_batch_size)
        self._size_of = size_of
        self._result_size_of = result_size_of
        self._queue: deque[Waiting] = deque()
        self._running: asyncio.Task[None] | None = None

    def __call__(self, infer: Infer) -> Callable[[Any], Awaitable[Any]]:
        return partial(self._join, infer)

    async def _join(self, infer: Infer, value: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(value, self._size_of(value), infer, answer, copy_context(), WORK.get()))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), context=Context())
        return await answer

    async def _run(self) -> None:
        try:
            while True:
                # What the last poll brought is read first: calls that came together are one batch.
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                if not (batch := self._next()):
                    return
                job = asyncio.create_task(self._infer(batch), context=batch[0].context)
                for each in batch:
                    if each.work is not None:
                        each.work.add(job)
                await job
        finally:
            self._running = None

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        most = self.pay.most() if self._queue else 0
        while self._queue:
            first = self._queue[0]
            if first.answer.done():  # its caller has gone
                self._queue.popleft()
                continue
            alike = not batch or first.infer.keywords == batch[0].infer.keywords
            if batch and (not alike or size + first.size > most):
                break
            batch.append(self._queue.popleft())
            size += first.size
        return batch

    async def _infer(self, batch: list[Waiting]) -> None:
        try:
            begun = time.perf_counter()
            results = await batch[0].infer([each.value for each in batch])
            self.pay.learn(sum(each.size for each in batch), time.perf_counter() - begun)
            self._check(batch, results)
        except Exception as error:  # the edge of a task: the service's error is each caller's answer
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, result in zip(batch, results, strict=True):
            if not each.answer.done():
                each.answer.set_result(result)

    def _check(self, batch: list[Waiting], results: Sequence[Any]) -> None:
        """Raises ValueError where a caller could get a part of another's result. One alone gets whatever came."""
        if len(results) != len(batch):
            raise ValueError(f"the method returned {len(results)} results for a batch of {len(batch)}")
        if len(batch) > 1:
            wanted, came = [each.size for each in batch], [self._result_size_of(result) for result in results]
            if wanted != came:
                raise ValueError(f"the method returned {sum(came)} results for a batch of {sum(wanted)} items")
