"""From a service folder, a `module:Class` or a tag to a bento's folder, and from that to a tar.

Building runs in a process of its own (`python -P -m torpor.client.build`): it imports the user's service.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torpor.errors import BY_CODE, InvalidService, NotFound

SHOWN = 6  # last lines of a build that crashed
CHUNK = 1 << 18  # bytes
MARK = "\n@torpor "  # before the build's answer: the user's module may print too


@dataclass(frozen=True, slots=True)
class Built:
    """A bento in the local store."""

    tag: str
    folder: Path


def build(source: str | Path) -> Built:
    """Builds a service folder or `module:Class` (from the working directory), or finds a built bento by its tag.

    What is built already, of the same files, is found and not built a second time. Raises InvalidService, or
    ModelNotFound when the service names a model that is not in the model store.
    """
    if find_spec("bentoml") is None:
        raise NotFound("a deploy builds with bentoml, which is not installed here\npip install 'torpor[platform]'")
    command = [sys.executable, "-P", "-m", "torpor.client.build", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "BENTOML_DO_NOT_TRACK": "True"})
    answer = done.stdout.rpartition(MARK)[2] if MARK in done.stdout else ""
    if not answer:
        said = " | ".join(done.stderr.strip().splitlines()[-SHOWN:]) or f"it exited with {done.returncode}"
        raise InvalidService(f"{source} cannot be built: {said}\nmend the service; `bentoml build` shows the same")
    found = json.loads(answer)
    if "error" in found:
        raise BY_CODE[found["code"]](found["error"])
    return Built(found["tag"], Path(found["folder"]))


def packed(folder: Path) -> Iterator[bytes]:
    """A tar of a bento's folder, in chunks; file modes and owners are left out, links are resolved."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w|", dereference=True) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = archive.gettarinfo(path, str(path.relative_to(folder)))
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            while buffer.tell() >= CHUNK:
                yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.BytesIO) -> bytes:
    out = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return out
