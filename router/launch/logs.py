"""The endpoints' logs: one file a replica, the newest kept, each bounded."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

KEPT = 20  # files an endpoint
FILE_MAX = 16 << 20  # bytes; a longer one is cut to its last half when the next replica starts
TAIL_BYTES = 1 << 18  # bytes read for the last lines


class Logs:
    """`<folder>/<endpoint>/<replica>.log`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, endpoint: str, replica: str) -> Path:
        """A new replica's file; makes room for it."""
        folder = self._folder / endpoint
        folder.mkdir(parents=True, exist_ok=True)
        files = self._files(endpoint)
        for old in files[: max(0, len(files) - KEPT + 1)]:
            old.unlink(missing_ok=True)
        for path in files[-KEPT:]:
            with contextlib.suppress(OSError):
                if path.stat().st_size > FILE_MAX:
                    path.write_bytes(last_bytes(path, FILE_MAX // 2))
        path = folder / f"{replica}.log"
        path.touch(mode=0o600)
        return path

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
                start = seen.get(path, 0)
                if start > path.stat().st_size:
                    start = 0  # it was cut
                file.seek(start)
                whole, newline, _ = file.read(TAIL_BYTES).rpartition(b"\n")
                seen[path] = start + len(whole) + len(newline)
                if newline:
                    yield from (f"{path.stem} {line}" for line in whole.decode(errors="replace").split("\n"))

    def ends(self, endpoint: str) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self._files(endpoint)}

    def _files(self, endpoint: str) -> list[Path]:
        return sorted((self._folder / endpoint).glob("*.log"), key=lambda path: path.stat().st_mtime_ns)


def last_bytes(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read()


def last_lines(path: Path, lines: int) -> list[str]:
    if lines <= 0 or not path.exists():
        return []
    return last_bytes(path, TAIL_BYTES).decode(errors="replace").splitlines()[-lines:]
