"""Environments: the platform's own interpreter where it has what a bento asks for, else one made by uv."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

import torpor
from torpor.errors import InvalidService

LAST_LINES = 8


class Environments:
    """`<folder>/<key>`, where the key is the digest of what was asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making: dict[str, asyncio.Lock] = {}

    async def python(self, requirements: tuple[str, ...], tell: Callable[[str], None]) -> Path:
        """An interpreter with these packages. Raises InvalidService with uv's last lines."""
        missing = unmet(requirements)
        if not missing:
            return Path(sys.executable)
        key = key_of(requirements)
        async with self._making.setdefault(key, asyncio.Lock()):
            home = self._folder / key
            python = home / "bin" / "python"
            if not (home / "complete").exists():
                tell(f"making an environment for {', '.join(missing)}")
                await self._make(home, requirements, tell)
            return python

    async def _make(self, home: Path, requirements: tuple[str, ...], tell: Callable[[str], None]) -> None:
        """A venv cannot be moved once made: `complete` is written last, and a folder without it is made again."""
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        python = home / "bin" / "python"
        await _run(tell, *_uv(), "venv", "--quiet", "--python", sys.executable, str(home))
        own = [f"{name}=={importlib.metadata.version(name)}" for name in ("bentoml", "uvloop", "httptools", "uvicorn")]
        await _run(tell, *_uv(), "pip", "install", "--python", str(python), *own, "websockets", *requirements)
        _complete(home, requirements)


def _complete(home: Path, requirements: tuple[str, ...]) -> None:
    """torpor itself comes from where it runs: the host must be the router's own version."""
    purelib = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(purelib, "torpor-host.pth").write_text(str(Path(torpor.__file__).parent.parent) + "\n")
    (home / "complete").write_text("\n".join(requirements))


def unmet(requirements: Iterable[str]) -> list[str]:
    """Those requirements that this interpreter does not meet. Raises InvalidService for what is none."""
    missing = []
    for line in requirements:
        try:
            wanted = Requirement(line)
        except InvalidRequirement as error:
            raise InvalidService(f"the bento asks for {line!r}: {error}\nmend its python packages") from None
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(line)
            continue
        if wanted.url is not None or not wanted.specifier.contains(version, prereleases=True):
            missing.append(line)
    return missing


def key_of(requirements: Iterable[str]) -> str:
    lines = [sys.version, importlib.metadata.version("bentoml"), *sorted(requirements)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _uv() -> tuple[str, ...]:
    return (sys.executable, "-m", "uv")


async def _run(tell: Callable[[str], None], *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "NO_COLOR": "1"},
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            lines.append(raw.decode(errors="replace").rstrip())
            tell(lines[-1])
        status = await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if status != 0:
        said = " | ".join(lines[-LAST_LINES:])
        raise InvalidService(f"the bento's packages cannot be installed: {said}\nmend the bento's python packages")
