"""torpor's package where the engine finds it: what it mounts is the machine's, and a router in a container has files of
its own. Only the data folder is at the same path on both sides."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torpor

MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))  # the engines make them in what they start
APPLICATION = "_app"  # the router's own, which an installed package carries; no replica sees it
EXECUTABLE, PLAIN = 0o755, 0o644


def package(data: Path, marks: tuple[Path, ...] = MARKS) -> Path:
    """The package's folder; of a router in a container, a copy of it in the data folder. Blocks. Raises OSError."""
    own = Path(torpor.__file__).parent
    if not any(mark.exists() for mark in marks):
        return own
    copies = data / "host"
    home = copies / _digest(own)
    if not home.exists():
        copies.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=copies))
        # With its bytecode, which holds for the same times: a container cannot write any.
        shutil.copytree(own, part / own.name, ignore=shutil.ignore_patterns(APPLICATION))
        for path in (part, *part.rglob("*")):
            path.chmod(EXECUTABLE if path.is_dir() else PLAIN)  # whatever this process's umask is
        os.rename(part, home)
    for other in copies.iterdir():  # of an earlier version, or cut off
        if other != home:
            shutil.rmtree(other, ignore_errors=True)
    return home / own.name


def _digest(own: Path) -> str:
    digest = hashlib.sha256()
    for path in _files(own):
        digest.update(f"{path.relative_to(own)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files(own: Path) -> Iterator[Path]:
    for path in sorted(own.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and APPLICATION not in path.relative_to(own).parts:
            yield path
