"""What a deploy asks for, and what deploys ask of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from router.core.catalog import Change, Learned, Registered
from router.core.settings import Settings
from router.core.split import Rule
from router.shell.plan import Contained, Plan

# Takes an event of a deploy as it happens: `docs/protocols.md`, "Control plane".
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a bento asks of whoever runs it."""

    folder: Path
    bento: Path
    target: str
    requirements: tuple[str, ...] = ()
    listed: Path | None = None  # the file that lists them
    required_env: tuple[str, ...] = ()
    python: str = ""  # the version that it was built for, such as 3.11; "": any
    models: tuple[Path, ...] = ()  # folders and files of those that lie elsewhere


@dataclass(frozen=True, slots=True)
class Environment:
    """What a revision runs on: an interpreter of this machine, or (where one is named) an image."""

    python: Path
    image: str = ""  # its id


@dataclass(frozen=True, slots=True)
class Part:
    """One revision to be: the endpoint's own, or a variant's. `rule`: how calls come to a variant."""

    bento: str
    env: dict[str, str]
    settings: Settings
    spec: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a deploy asks for. With a `variant` (and its `rule`) the live revision stays, and this one goes beside it.

    `versions`: those of a canary, which begins with this deploy; the one before ends with it.
    """

    name: str
    bento: str
    env: dict[str, str]
    settings: Settings
    spec: dict[str, Any] = field(default_factory=dict)
    creator: str = ""
    variant: str = ""
    rule: Rule | None = None
    versions: tuple[Part, ...] = ()
    uid: str = ""  # of the endpoint, where it was given one before it is made
    notes: tuple[str, ...] = ()  # what the request was taken to mean, for the endpoint's events

    def parts(self) -> tuple[Part, ...]:
        own = Part(self.bento, self.env, self.settings, self.spec, self.variant, self.rule)
        return (own, *self.versions)


class Records(Protocol):
    """Where endpoints are kept: each write returns when it is on the disk; reads block."""

    async def put(self, change: Change) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def terminate(self, name: str, whether: bool) -> None: ...

    def newest(self, name: str) -> int: ...

    def before(self, name: str) -> int | None:
        """The number of the revision that was live before the live one."""
        ...

    def revision(self, name: str, number: int) -> Registered:
        """Raises NotFound."""
        ...


class Packages(Protocol):
    """Where bentos are, and what they run on."""

    def check(self, settings: Settings) -> None:
        """Raises BadRequest where this machine has not what the settings ask of it."""
        ...

    def needs(self, tag: str) -> Needs:
        """Raises NotFound, InvalidService or ModelNotFound."""
        ...

    async def environment(self, needs: Needs, settings: Settings, tell: Callable[[str], None]) -> Environment:
        """What runs it as the settings say, made first where it is not there. Raises TorporError."""
        ...


class Ports(Protocol):
    """The endpoints' own ports."""

    async def open(self, port: int) -> int:
        """Raises Conflict where something else listens."""
        ...

    def close(self, port: int) -> None: ...


class Vault(Protocol):
    """The secrets."""

    def env(self, names: tuple[str, ...]) -> dict[str, str]:
        """Variables. Raises NotFound."""
        ...

    def files(self, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
        """Files, by their place in the replica's folder. Raises NotFound."""
        ...


class NoVault:
    """A platform without secrets."""

    def env(self, names: tuple[str, ...]) -> dict[str, str]:
        return {}

    def files(self, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
        return []


NO_VAULT = NoVault()


def plan_of(entry: Registered, needs: Needs, on: Environment, vault: Vault, learned: Learned | None) -> Plan:
    """Raises NotFound for a secret that is not there.

    `learned`: None for the first start, which is to report what it imports.
    """
    settings = entry.settings
    return Plan(
        endpoint=entry.name,
        revision=entry.revision,
        folder=needs.folder,
        bento=needs.bento,
        target=needs.target,
        python=on.python,
        env={**vault.env(entry.secrets), **entry.env},
        concurrency=settings.concurrency,
        threads=settings.threads,
        replicas=settings.max_replicas,
        modules=learned.modules if learned else (),
        sessions=tuple(learned.facts.get("sessions", ())) if learned else (),
        learn=learned is None,
        files=tuple(vault.files(entry.secrets)),
        contained=contained(settings, needs, on.image) if on.image else None,
    )


def contained(settings: Settings, needs: Needs, image: str) -> Contained:
    return Contained(
        image=image,
        models=needs.models,
        memory=settings.memory_limit,
        cpus=settings.cpus,
        pids=settings.pids_limit,
        egress=settings.egress,
        ahead=settings.rung != "fork" and not settings.gpu,  # which card it gets is known at its start
    )
