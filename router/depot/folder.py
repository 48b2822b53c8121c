"""A depot in a folder: `<folder>/<aa>/<digest>`, published by one rename."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from router.depot.depot import Object, Spooled
from router.disk import disk
from torpor.errors import NotFound

CHUNK = 1 << 20  # bytes
DIGEST = re.compile(r"[0-9a-f]{64}")


class FolderDepot:
    """On the same disk as the spool. Who may write the folder is believed."""

    direct = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def take(self, spooled: Spooled) -> None:
        await asyncio.to_thread(self._take, spooled)

    async def open(self, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        try:
            descriptor = await asyncio.to_thread(os.open, self._path(digest), os.O_RDONLY)
        except FileNotFoundError:
            raise missing(digest) from None
        return os.fstat(descriptor).st_size, _read(descriptor)

    @contextmanager
    def fetch(self, digest: str) -> Iterator[Path]:
        path = self._path(digest)
        if not path.is_file():
            raise missing(digest)
        yield path

    async def delete(self, digest: str) -> None:
        await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    async def objects(self) -> list[Object]:
        return await asyncio.to_thread(lambda: list(self._listed()))

    def _take(self, spooled: Spooled) -> None:
        path = self._path(spooled.digest)
        with disk(self._folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                os.utime(path)  # it is wanted now, however old it is
                spooled.path.unlink()
                return
            spooled.path.rename(path)
            for folder in (path.parent, path.parent.parent):
                written(folder)

    def _listed(self) -> Iterator[Object]:
        for path in sorted(self._folder.glob("??/*")):
            if DIGEST.fullmatch(path.name):
                found = path.stat()
                yield Object(path.name, found.st_size, found.st_mtime)

    def _path(self, digest: str) -> Path:
        assert DIGEST.fullmatch(digest), digest
        return self._folder / digest[:2] / digest


async def _read(descriptor: int) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(os.read, descriptor, CHUNK):
            yield chunk
    finally:
        os.close(descriptor)


def missing(digest: str) -> NotFound:
    return NotFound(f"the depot has nothing under {digest}\npush it again")


def written(folder: Path) -> None:
    """Has a folder's entries on the disk. Blocks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
