"""Unpacked copies of what the depot has: `<folder>/<name>/<version>`, published by one rename."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from router.card import card, read_card
from router.core.artifacts import Kind
from router.depot.archive import Bounds, check_tag, same, unpack
from router.depot.folder import written
from router.disk import disk

DIGEST = ".digest"  # a file at the top of a copy: the digest of the tar that it came from


class Unpacked:
    """All of one kind. Everything here blocks."""

    def __init__(self, folder: Path, kind: Kind, bounds: Bounds) -> None:
        self.folder = folder
        self.kind = kind
        self.bounds = bounds
        self._publishing = threading.Lock()

    def open(self) -> None:
        """Makes the folder and clears what a killed router left."""
        shutil.rmtree(self.folder / ".parts", ignore_errors=True)
        (self.folder / ".parts").mkdir(parents=True)

    def find(self, name: str, version: str) -> Path | None:
        """The copy, whatever it came from."""
        path = self.folder / name / version
        return path if (path / card(self.kind)).is_file() else None

    def digest(self, name: str, version: str) -> str | None:
        """Of the tar that the copy came from; None where there is no copy, or one from before there was a depot."""
        try:
            return (self.folder / name / version / DIGEST).read_text()
        except OSError:
            return None

    @contextmanager
    def part(self, tar: Path, digest: str, name: str, version: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A tar unpacked beside the copies, and what its card says; gone at the end if it was not published.

        Raises BadRequest, BodyTooLarge, InvalidService or DiskFull.
        """
        with disk(self.folder):
            beside = Path(tempfile.mkdtemp(dir=self.folder / ".parts"))
            try:
                part = beside / self.kind
                unpack(tar, part, self.bounds, self.kind)
                found = read_card(part, self.kind)
                check_tag(found, self.kind, name, version)
                (part / DIGEST).write_text(digest)
                yield part, found
            finally:
                shutil.rmtree(beside, ignore_errors=True)

    def publish(self, part: Path, name: str, version: str) -> Path:
        """In place of what was there before."""
        target = self.folder / name / version
        with self._publishing, disk(self.folder):
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                target.rename(part.parent / "before")
            part.rename(target)
            written(target.parent)
        return target

    def alike(self, part: Path, name: str, version: str) -> bool:
        """Whether the copy that is there holds the same."""
        return same(part, self.folder / name / version, DIGEST)

    def remove(self, name: str, version: str) -> None:
        """Out of the way by one rename, then deleted."""
        with self._publishing:
            target = self.folder / name / version
            if not target.exists():
                return
            beside = Path(tempfile.mkdtemp(dir=self.folder / ".parts"))
            target.rename(beside / "gone")
            if not any(target.parent.iterdir()):
                target.parent.rmdir()
        shutil.rmtree(beside, ignore_errors=True)

    def all(self) -> Iterator[tuple[str, str, Path]]:
        """Name, version and folder of each copy."""
        for path in sorted(self.folder.glob("*/*")):
            if not path.parent.name.startswith(".") and path.is_dir():
                yield path.parent.name, path.name, path
