"""The work of a call that goes on without its task: threads and batches, which nothing can cancel."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any


class Work:
    """What one call has started; each job is forgotten when it ends."""

    def __init__(self) -> None:
        self._jobs: set[asyncio.Future[Any]] = set()

    def add(self, job: asyncio.Future[Any]) -> None:
        self._jobs.add(job)
        job.add_done_callback(self._forget)

    async def ended(self) -> None:
        """Returns when nothing runs any more; what the jobs raise is not raised here."""
        while self._jobs:
            await asyncio.wait(tuple(self._jobs))

    def _forget(self, job: asyncio.Future[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # looked at: an abandoned job's exception has nobody to go to


WORK: ContextVar[Work | None] = ContextVar("work", default=None)  # of the call that the current task belongs to
