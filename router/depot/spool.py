"""Where a stream lands before it is believed: a file of its own, hashed while it is written."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from router.depot.depot import Spooled
from router.disk import disk
from torpor.errors import BodyTooLarge

BATCH = 2 << 20  # bytes that are hashed and written at once; two batches are in memory
THREADS = 8  # uploads that are hashed and written at once
VECTORS = 512  # pieces of one write; writev(2) takes 1024


class Spool:
    """Files of a folder that nothing but the uploads under way needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="torpor-spool")  # others need not wait for fsync

    def open(self) -> None:
        """Makes the folder and clears what a killed router left. Blocks."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @asynccontextmanager
    async def receive(self, stream: AsyncIterator[bytes], most: int) -> AsyncIterator[Spooled]:
        """The stream as a file, which is gone at the end if nobody took it.

        `most`: bytes. Raises BodyTooLarge, DiskFull, and what the stream raises.
        """
        with disk(self.folder):
            descriptor, name = tempfile.mkstemp(dir=self.folder)
            path = Path(name)
            try:
                try:
                    digest, size = await self._written(descriptor, stream, most)
                finally:
                    os.close(descriptor)
                yield Spooled(path, digest, size)
            finally:
                with anyio.CancelScope(shield=True):
                    await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _written(self, descriptor: int, stream: AsyncIterator[bytes], most: int) -> tuple[str, int]:
        """A thread hashes and writes one batch while the next one comes."""
        hashed, size = hashlib.sha256(), 0
        batch: list[bytes] = []
        held = 0
        writing: asyncio.Future[None] | None = None
        loop = asyncio.get_running_loop()

        def work(pieces: list[bytes], last: bool = False) -> None:
            for piece in pieces:
                hashed.update(piece)
            for start in range(0, len(pieces), VECTORS):
                _write(descriptor, pieces[start : start + VECTORS])
            if last:
                os.fsync(descriptor)

        try:
            async for piece in stream:
                held += len(piece)
                if size + held > most:
                    raise BodyTooLarge(
                        f"the upload is larger than {most} bytes\n"
                        "keep a bento's large files in models; a model may have max_upload"
                    )
                batch.append(piece)
                if held >= BATCH:
                    if writing is not None:
                        await writing
                    writing = loop.run_in_executor(self._threads, work, batch)
                    size, held, batch = size + held, 0, []
            if writing is not None:
                await writing
            writing = loop.run_in_executor(self._threads, work, batch, True)
            await writing
        finally:
            if writing is not None and not writing.done():  # the descriptor is its own as long as it runs
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([writing])
        return hashed.hexdigest(), size + held


def _write(descriptor: int, pieces: list[bytes]) -> None:
    """All of them: a write may take less than it was given, near the end of the disk."""
    views = [memoryview(piece) for piece in pieces if piece]
    while views:
        done = os.writev(descriptor, views)
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]
