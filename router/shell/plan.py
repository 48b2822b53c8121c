"""What a launcher is told of a revision, and what the engine asks of a launcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from router.core.events import Event


@dataclass(frozen=True, slots=True)
class Contained:
    """What running a revision in containers takes beside. `memory` in bytes, 0 for what the platform has."""

    image: str  # its id
    models: tuple[Path, ...] = ()  # folders that the service reads
    memory: int = 0  # of one replica
    cpus: float = 0.0  # 0: all
    pids: int = 512
    egress: bool = False
    ahead: bool = False  # whether a container is made before it is wanted


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that starting a replica of one revision takes."""

    endpoint: str
    revision: int
    folder: Path  # the service's source: working directory and first entry of sys.path
    bento: Path | None  # the bento's folder, None for a plain folder
    target: str  # "module:Class"
    python: Path  # the environment's interpreter
    env: dict[str, str] = field(default_factory=dict)
    concurrency: int = 0
    threads: int = 1  # intra-op threads asked for one replica
    replicas: int = 1  # that may run at once
    modules: tuple[str, ...] = ()  # to preload
    sessions: tuple[dict[str, Any], ...] = ()  # facts of those that the first start opened: to open early
    learn: bool = False  # the first start: report the modules
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)  # secrets, by place in a folder of their own
    contained: Contained | None = None  # None: as a process
    cards: tuple[str, ...] = ()  # the graphics cards that this start has, by UUID


class Launcher(Protocol):
    """The way replicas are started. What happens to a replica is told by `tell`, at last and always Exited."""

    async def prepare(self, plan: Plan) -> None:
        """Does what can be done before a start, so that the start is quick. Raises TorporError."""
        ...

    async def start(self, replica: str, plan: Plan, tell: Callable[[Event], None], template: str | None = None) -> None:
        """Returns when the replica's process exists. Raises TorporError: then there is none, and nothing is told.

        Forked from the template where one is named and still there.
        """
        ...

    async def stop(self, replica: str, within: float) -> None:
        """TERM to the whole group, `within` seconds, KILL; returns when it is gone. One not yet forked is awaited.

        One that is frozen goes on first, to hear TERM. One that is gone already is no fault.
        """
        ...

    def address(self, replica: str) -> str:
        """The path of its Unix socket: it takes connections before the replica is ready."""
        ...

    def said(self, replica: str) -> Mapping[str, Any]:
        """What the replica said when it became ready: schema, facts, modules; and `pid`."""
        ...

    def last_words(self, replica: str) -> tuple[str, ...]:
        """The last lines of its log so far; none where it has no process."""
        ...


class Templates(Protocol):
    """Processes that have a service loaded, to fork replicas from."""

    async def keep(self, template: str, plan: Plan, tell: Callable[[Event], None]) -> None:
        """Makes a template and returns when its process is gone. Tells Kept when it is loaded, and Unkept at last."""
        ...

    async def drop(self, template: str) -> None:
        """Ends a template once nothing that was forked from it runs; returns when it is gone."""
        ...


class Pausing(Protocol):
    """Replicas that sleep frozen. Asked for one replica in turn: never both at once, nor beside its start or stop."""

    async def pause(self, replica: str) -> None:
        """Returns when it is frozen. Raises TorporError where it cannot be: it is stopped then."""
        ...

    async def resume(self, replica: str, tell: Callable[[Event], None]) -> None:
        """Returns when it runs again, and tells Ready with the phase `resume`; its limit is that of its start.

        Raises TorporError where it cannot go on, and tells nothing: it is stopped then.
        """
        ...


class Launching(Launcher, Templates, Pausing, Protocol):
    """All of it."""
