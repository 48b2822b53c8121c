"""A disk that takes nothing more, as the one error that says so: full, over its quota, or mounted read-only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor.errors import DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT)
TAKES_NOTHING = (*FULL, errno.EROFS)


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """What is written below `folder`: raises DiskFull in place of the system's own error; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno in TAKES_NOTHING:
            raise full(folder, os.strerror(error.errno)) from error
        raise


def full(folder: Path, reason: str) -> DiskFull:
    return DiskFull(
        f"the disk of {folder} takes nothing more: {reason}\nmake room there; what was there before is as it was"
    )


def says_full(lines: list[str]) -> str | None:
    """The reason, where another program's words are those of a full disk. What it finds read-only may be anything."""
    said = "\n".join(lines).lower()  # an engine writes them in small letters
    return next((reason for each in FULL if (reason := os.strerror(each)).lower() in said), None)
