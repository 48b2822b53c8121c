"""Environments: the platform's own interpreter where it has what a bento asks for, else one made by uv."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
from packaging.requirements import InvalidRequirement, Requirement

import torpor
from router.disk import disk, full, says_full
from router.launch.orphans import forget, remember, signal_group
from torpor.errors import InvalidService

LAST_LINES = 8
LINE_MAX = 1 << 20  # bytes
# What the host runs on, in the router's own versions: also where a bento's lock names others.
OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OWN = ("bentoml", "uvloop", "httptools", "uvicorn", "websockets")


class Environments:
    """`<folder>/<key>`, where the key is the digest of what was asked for.

    `run` is where the installers' pids are written down: one that outlives its router is ended by the next.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self._folder = folder
        self._run_folder = run
        self._making: dict[str, asyncio.Lock] = {}

    async def python(self, listed: Path | None, tell: Callable[[str], None], version: str = "") -> Path:
        """An interpreter with the packages of a requirements file. Raises DiskFull, or InvalidService with uv's words.

        `version`: of Python, such as 3.12; "": any. `tell` hears the installer's lines. Who comes while another makes
        the same environment waits for it.
        """
        other = other_python(version)
        missing = [] if other else unmet(requirements(listed))
        if listed is None or not (missing or other):
            return Path(sys.executable)
        base = await self._interpreter(other) if other else sys.executable
        key = key_of(listed, other)
        async with self._making.setdefault(key, asyncio.Lock()):
            home = self._folder / key
            if not (home / "complete").exists():
                tell(f"making an environment for {', '.join(missing) or f'Python {other}'}")
                await self._make(home, base, listed, tell)
            _link_torpor(home)
            return home / "bin" / "python"

    async def _interpreter(self, version: str) -> str:
        """Raises InvalidService for a Python that is not on this machine: nothing is downloaded unasked."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uv", "python", "find", "--system", version),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
        )
        said, _ = await process.communicate()
        found = said.decode().strip()
        if process.returncode or not found:
            raise InvalidService(
                f"the bento is for Python {version}, which uv does not find on this machine\n"
                f"install it (uv python install {version}), or build the bento for {OWN_PYTHON}"
            )
        return found

    async def _make(self, home: Path, base: str, listed: Path, tell: Callable[[str], None]) -> None:
        """A venv cannot be moved once made: `complete` is written last, and a folder without it is made again."""
        await _remove(home)
        try:
            with disk(self._folder):
                await self._fill(home, base, listed, tell)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await _remove(home)
            raise

    async def _fill(self, home: Path, base: str, listed: Path, tell: Callable[[str], None]) -> None:
        home.parent.mkdir(parents=True, exist_ok=True)
        uv = (sys.executable, "-m", "uv")
        await self._run(tell, listed.parent, *uv, "venv", "--quiet", "--python", base, str(home))
        own = home / "own.txt"
        own.write_text("\n".join(own_pins()))
        files = ("--requirements", str(listed), "--requirements", str(own), "--overrides", str(own))
        python = str(home / "bin" / "python")
        await self._run(tell, listed.parent, *uv, "pip", "install", "--python", python, *files)
        (home / "complete").touch()

    async def _run(self, tell: Callable[[str], None], folder: Path, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,  # a bento's own wheels are listed relative to its list
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "NO_COLOR": "1"},
            start_new_session=True,
            limit=LINE_MAX,
        )
        name = f"installer-{process.pid}"
        lines: list[str] = []
        try:
            remember(self._run_folder, name, process.pid)
            assert process.stdout is not None
            async for raw in process.stdout:
                lines.append(raw.decode(errors="replace").rstrip())
                tell(lines[-1])
            status = await process.wait()
        except BaseException:
            signal_group(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()
            raise
        finally:
            forget(self._run_folder, name)
        if status != 0:
            if (reason := says_full(lines)) is not None:
                raise full(self._folder, reason)
            said = " | ".join(lines[-LAST_LINES:])
            raise InvalidService(f"the bento's packages cannot be installed: {said}\nmend the bento's python packages")


def requirements(listed: Path | None) -> tuple[str, ...]:
    """The requirements that a file lists, without pip's options, hashes and comments; none for no file."""
    if listed is None or not listed.exists():
        return ()
    lines = (line.partition(" #")[0].partition(" --hash")[0] for line in listed.read_text().splitlines())
    bare = (line.rstrip("\\").strip() for line in lines)
    return tuple(line for line in bare if line and not line.startswith(("#", "-")))


def unmet(asked: Iterable[str]) -> list[str]:
    """Those requirements that this interpreter does not meet. Raises InvalidService for what is none."""
    missing = []
    for line in asked:
        if line.startswith((".", "/")) or (" " not in line and "://" in line):  # a wheel or an archive by its place
            missing.append(line)
            continue
        try:
            wanted = Requirement(line)
        except InvalidRequirement as error:
            reason = str(error).partition("\n")[0]
            raise InvalidService(f"the bento asks for {line!r}: {reason}\nmend its python packages") from None
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


def own_pins() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in OWN]


def other_python(version: str) -> str:
    """The series of a version such as 3.12.1 (3.12) where the router runs on another, else "". Patches do not count."""
    series = ".".join(version.split(".")[:2])
    return "" if series == OWN_PYTHON else series


def key_of(listed: Path, version: str = "") -> str:
    """Of a file of requirements: the same packages for the same interpreter are one environment."""
    lines = sorted(line.strip() for line in listed.read_text().splitlines() if line.strip())
    return hashlib.sha256("\n".join([version or sys.version, *own_pins(), *lines]).encode()).hexdigest()[:16]


def _link_torpor(home: Path) -> None:
    """The host is the router's own torpor, from where that is now. A link to the one package: what else lies beside
    it (the platform's packages, the application's folders) is not the bento's."""
    [purelib] = (home / "lib").glob("python*/site-packages")
    link, package = purelib / "torpor", Path(torpor.__file__).parent
    if link.is_symlink() and link.readlink() == package:
        return
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    part = purelib / "torpor.part"
    part.unlink(missing_ok=True)
    part.symlink_to(package)
    part.rename(link)


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
