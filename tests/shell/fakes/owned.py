"""What a deploy changes, in memory and with gates: records, packages, ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from router.core import past
from router.core.catalog import Change, Registered
from router.core.settings import Settings
from router.core.split import Variant
from router.shell.request import Environment, Needs
from torpor.errors import BadRequest, Conflict, NotFound, TorporError


class Gate:
    """`pass_` waits while it is shut; `reached` is set when somebody has come to it since."""

    def __init__(self) -> None:
        self._open: anyio.Event | None = None
        self.reached = anyio.Event()
        self.error: TorporError | None = None

    def shut(self) -> None:
        self._open = anyio.Event()
        self.reached = anyio.Event()

    def open(self) -> None:
        if self._open is not None:
            self._open.set()
            self._open = None

    async def pass_(self) -> None:
        """Raises `error`, when that is set."""
        self.reached.set()
        await checkpoint()
        if self._open is not None:
            await self._open.wait()
        if self.error is not None:
            raise self.error


@dataclass
class FakeRecords:
    """Endpoints by name; a write is done when it has passed the gate."""

    rows: dict[str, Registered] = field(default_factory=dict)
    gate: Gate = field(default_factory=Gate)

    kept: dict[tuple[str, int], Registered] = field(default_factory=dict)
    variants: dict[str, tuple[Variant, ...]] = field(default_factory=dict)
    terminated: set[str] = field(default_factory=set)
    past: dict[str, tuple[int, ...]] = field(default_factory=dict)

    async def put(self, change: Change) -> None:
        await self.gate.pass_()
        self.kept |= {(change.name, entry.revision): replace(entry, name=change.name) for entry in change.new}
        if change.live is not None:
            live, number = self.rows.get(change.name), change.live.revision
            self.past[change.name] = past.after(self.past.get(change.name, ()), live.revision if live else 0, number)
            self.rows[change.name] = change.live
            self.terminated.discard(change.name)
        if change.variants is not None:
            self.variants[change.name] = change.variants

    async def delete(self, name: str) -> None:
        await self.gate.pass_()
        del self.rows[name]
        self.variants.pop(name, None)
        self.past.pop(name, None)
        self.terminated.discard(name)
        self.kept = {key: entry for key, entry in self.kept.items() if key[0] != name}

    async def terminate(self, name: str, whether: bool) -> None:
        await self.gate.pass_()
        self.terminated.add(name)

    def newest(self, name: str) -> int:
        return max((number for each, number in self.kept if each == name), default=0)

    def before(self, name: str) -> int | None:
        return next(reversed(self.past.get(name, ())), None)

    def revision(self, name: str, number: int) -> Registered:
        if (name, number) not in self.kept:
            raise NotFound(f"{name!r} has no revision {number}\nsee its history")
        return self.kept[name, number]


@dataclass
class FakePackages:
    """Bentos by tag; an environment's lines are told, then the gate is passed."""

    known: dict[str, Needs] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    gate: Gate = field(default_factory=Gate)
    gpus: int = 0

    def check(self, settings: Settings) -> None:
        if settings.gpu > self.gpus:
            raise BadRequest(f"gpu = {settings.gpu}, but this machine has {self.gpus} GPUs\ndeploy with fewer")

    def needs(self, tag: str) -> Needs:
        if tag not in self.known:
            raise NotFound(f"bento {tag} is not here\nupload it first")
        return self.known[tag]

    async def environment(self, needs: Needs, settings: Settings, tell: Callable[[str], None]) -> Environment:
        for line in self.lines:
            tell(line)
        await self.gate.pass_()
        return Environment(Path("/usr/bin/python"))


@dataclass
class FakePorts:
    """Ports that are open; those in `taken` are somebody else's."""

    listening: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)
    gate: Gate = field(default_factory=Gate)

    async def open(self, port: int) -> int:
        await self.gate.pass_()
        if port in self.taken or port in self.listening:
            raise Conflict(f"port {port} cannot be had\nchoose another port")
        self.listening.add(port)
        return port

    def close(self, port: int) -> None:
        self.listening.discard(port)
