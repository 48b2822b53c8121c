"""The endpoints' logs: one file a replica, the newest kept, each bounded."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

KEPT = 20  # files an endpoint
FILE_MAX = 16 << 20  # bytes; `bound` cuts a longer one to its last half
TAIL_BYTES = 1 << 18  # bytes read for the last lines


class Logs:
    """`<folder>/<endpoint>/<replica>.log`. Everything here blocks for as long as the disk takes."""

    def __init__(self, folder: Path, file_max: int = FILE_MAX) -> None:
        self._folder = folder
        self._file_max = file_max

    def open(self, endpoint: str, replica: str) -> Path:
        """A new replica's file; makes room for it."""
        folder = self._folder / endpoint
        folder.mkdir(parents=True, exist_ok=True)
        files = self._files(endpoint)
        for old in files[: max(0, len(files) - KEPT + 1)]:
            old.unlink(missing_ok=True)
        path = folder / f"{replica}.log"
        path.touch(mode=0o600)
        return path

    def bound(self) -> None:
        """Cuts what has grown too long, also while its replica goes on writing."""
        for path in self._all():
            with contextlib.suppress(OSError):
                if path.stat().st_size > self._file_max:
                    cut(path, self._file_max // 2)

    def _all(self) -> list[Path]:
        """Every log there is; a folder may go while it is looked at."""
        found: list[Path] = []
        with contextlib.suppress(OSError):
            for path in self._folder.rglob("*.log"):
                found.append(path)
        return found

    def remove(self, endpoint: str) -> None:
        shutil.rmtree(self._folder / endpoint, ignore_errors=True)

    def tail(self, endpoint: str, lines: int) -> list[str]:
        """The endpoint's last lines over all replicas, each with its replica's id before it."""
        out: list[str] = []
        for path in reversed(self._files(endpoint)):
            out = [f"{path.stem} {line}" for line in last_lines(path, lines - len(out))] + out
            if len(out) >= lines:
                break
        return out

    def follow(self, endpoint: str, seen: dict[Path, int]) -> Iterator[str]:
        """What was written since `seen` (a position a file, kept up to date here), whole lines only."""
        for path in self._files(endpoint):
            with contextlib.suppress(OSError), path.open("rb") as file:
                size = path.stat().st_size
                start = min(seen.get(path, 0), size)  # one that was cut goes on at its end
                file.seek(start)
                read = file.read(TAIL_BYTES)
                whole, newline, _ = read.rpartition(b"\n")
                if not newline and len(read) == TAIL_BYTES:
                    whole = read  # a line without an end is shown in pieces
                seen[path] = start + len(whole) + len(newline)
                if whole or newline:
                    yield from (f"{path.stem} {line}" for line in whole.decode(errors="replace").split("\n"))

    def ends(self, endpoint: str) -> dict[Path, int]:
        return {path: stat.st_size for path, stat in self._stats(endpoint)}

    def _files(self, endpoint: str) -> list[Path]:
        """The one written to last comes last."""
        return [path for path, _ in sorted(self._stats(endpoint), key=lambda each: each[1].st_mtime_ns)]

    def _stats(self, endpoint: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in (self._folder / endpoint).glob("*.log"):
            with contextlib.suppress(FileNotFoundError):  # a new replica's start removes the oldest
                yield path, path.stat()


def cut(path: Path, keep: int) -> None:
    """Leaves the last whole lines of at most `keep` bytes. Whoever writes has opened it for appending.

    A line written just now may stand before those that are kept; none is written over.
    """
    with path.open("ab") as file:
        kept = last_bytes(path, keep).partition(b"\n")[2]
        os.ftruncate(file.fileno(), 0)
        file.write(kept)


def last_bytes(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read()


def last_lines(path: Path, lines: int) -> list[str]:
    if lines <= 0:
        return []
    try:
        read = last_bytes(path, TAIL_BYTES)
    except OSError:
        return []
    return read.decode(errors="replace").splitlines()[-lines:]
