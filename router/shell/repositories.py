"""Repositories of bentos and models: registering, uploading, downloading.

A version becomes whole in one step, the write of its row; before it the bytes are a file of the spool, after it an
object of the depot. What breaks off in between leaves the version as it was, and the client's next try begins anew.

1 registered, 2 the stream in the spool with its digest, 3 looked into, 4 in the depot, 5 in its row, 6 unpacked
(bentos; models when they are asked for).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

from router.core.artifacts import PART, Artifact, Kind, Labels, Repository, Status, listed_models, split_tag
from router.depot.archive import check_tag, look
from router.depot.copies import Copies
from router.depot.depot import Depot, Spooled
from router.depot.spool import Spool
from torpor.errors import BadRequest, Conflict, FixTheCall, NotFound

T = TypeVar("T")
Take = Callable[[], Awaitable[None]]  # has the bytes in the depot
COPIED = (
    "name",
    "version",
    "service",
    "entry_service",
    "bentoml_version",
    "services",
    "envs",
    "schema",
    "image",
    "spec",
)


class Rows(Protocol):
    """Where they are durable: each write returns when it is on the disk. What is no coroutine blocks."""

    def find_repository(self, kind: Kind, name: str) -> Repository | None: ...

    def find(self, kind: Kind, name: str, version: str) -> Artifact | None: ...

    async def repository(self, kind: Kind, name: str) -> Repository | None: ...

    async def repositories(self, kind: Kind) -> dict[str, Repository]:
        """By name."""
        ...

    async def put_repository(self, repository: Repository) -> None: ...

    async def get(self, kind: Kind, name: str, version: str) -> Artifact | None: ...

    async def put(self, artifact: Artifact) -> None: ...

    async def all(self, kind: Kind, name: str | None = None) -> list[Artifact]: ...

    async def drop(self, gone: Iterable[Artifact]) -> None: ...

    async def bentos_of_revisions(self) -> set[str]: ...

    async def images_of_revisions(self) -> set[str]: ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a client says of a version."""

    description: str | None = None
    manifest: dict[str, Any] | None = None
    labels: Labels | None = None
    build_at: str | None = None


class Repositories:
    """`clock`: seconds since the epoch."""

    def __init__(
        self, rows: Rows, depot: Depot, spool: Spool, copies: Copies, clock: Callable[[], float] = time.time
    ) -> None:
        self.rows = rows
        self.depot = depot
        self._spool = spool
        self.copies = copies
        self._clock = clock
        self._changing: WeakValueDictionary[tuple[Kind, str, str], asyncio.Lock] = WeakValueDictionary()
        self.coming: list[str] = []  # digests that the depot takes, until their rows are written
        self.freeing = asyncio.Lock()  # nothing begins to come while something is freed

    def open(self) -> None:
        """Clears what a killed router left. Blocks."""
        self._spool.open()
        self.copies.open()

    async def bento(self, tag: str) -> Path:
        """The folder of a bento, unpacked from the depot where it is not there. Raises NotFound."""
        name, version = split_tag(tag)
        path = await anyio.to_thread.run_sync(self.copies.find, Kind.BENTO, name, version)
        if path is None:
            raise NotFound(f"bento {tag} is not here\npush it first: bentoml push {tag}")
        return path

    async def repository(self, kind: Kind, name: str) -> Repository:
        """Raises NotFound."""
        found = await self.rows.repository(kind, name)
        if found is None:
            raise NotFound(f"there is no repository {name!r} of {kind}s\npush one first: bentoml push NAME:VERSION")
        return found

    async def create_repository(self, kind: Kind, name: str, description: str = "") -> Repository:
        """The one that is there, where another client was quicker. Raises BadRequest for what is no name."""
        if not PART.fullmatch(name):
            raise BadRequest(f"{name!r} cannot be a {kind}'s name\nuse up to 128 letters, digits, '.', '_' and '-'")
        found = await self.rows.repository(kind, name)
        if found is None:
            now = self._clock()
            found = Repository(kind, name, secrets.token_hex(16), description, (), now, now)
            await self.rows.put_repository(found)
        return found

    async def versions(self, kind: Kind, name: str) -> list[Artifact]:
        """Newest first. Raises NotFound where there is no such repository."""
        await self.repository(kind, name)
        return await self.rows.all(kind, name)

    async def latest(self, kind: Kind, name: str) -> Artifact | None:
        """The newest version that is whole."""
        return next((each for each in await self.rows.all(kind, name) if each.status is Status.SUCCESS), None)

    async def get(self, kind: Kind, name: str, version: str) -> Artifact:
        """Raises NotFound."""
        found = await self.rows.get(kind, name, version)
        if found is None:
            raise NotFound(f"there is no {kind} {name}:{version}\npush it first: bentoml push, bentoml models push")
        return found

    async def create(self, kind: Kind, name: str, version: str, said: Said) -> Artifact:
        """Registers a version; one that is there is updated. Raises BadRequest or NotFound (no such repository)."""
        await self.repository(kind, name)
        if not PART.fullmatch(version):
            raise BadRequest(f"{version!r} cannot be a version\nuse up to 128 letters, digits, '.', '_' and '-'")
        async with self._change(kind, name, version):
            found = await self.rows.get(kind, name, version)
            if found is not None:
                return await self._update(found, said)
            made = _made(kind, name, version, said, self._clock())
            await self.rows.put(made)
            return made

    async def update(self, kind: Kind, name: str, version: str, said: Said) -> Artifact:
        """The manifest of a version that is whole changes when the bytes to it have come. Raises NotFound."""
        async with self._change(kind, name, version):
            return await self._update(await self.get(kind, name, version), said)

    async def start_upload(self, kind: Kind, name: str, version: str) -> Artifact:
        """A version that is whole stays so until another upload has come whole. Raises NotFound."""
        async with self._change(kind, name, version):
            found = await self.get(kind, name, version)
            if found.whole:
                return found
            return await self._put(replace(found, status=Status.UPLOADING, reason=""))

    async def upload(
        self, kind: Kind, name: str, version: str, stream: AsyncIterator[bytes], digest: str | None = None
    ) -> Artifact:
        """Takes a tar of the folder; `digest`: the SHA-256 that the sender has of it.

        Raises NotFound, BadRequest, BodyTooLarge, Conflict, DiskFull, and what the stream raises.
        """
        await self.get(kind, name, version)
        async with self._spool.receive(stream, self.copies.of(kind).bounds.upload) as spooled:
            if digest is not None and digest.lower() != spooled.digest:
                error = BadRequest(
                    f"the digest of what came is {spooled.digest}, not {digest}: it was damaged on its way\n"
                    "send it again"
                )
                await self.fail(kind, name, version, error)
                raise error
            return await self.settle(kind, name, version, spooled, partial(self.depot.take, spooled))

    async def deposit(self, name: str, version: str, stream: AsyncIterator[bytes]) -> Artifact:
        """A bento that is described by nothing but its tar; one that is here already stays as it is.

        Raises what `create` and `upload` raise; nothing of what is refused stays.
        """
        split_tag(f"{name}:{version}")
        found = await self.rows.get(Kind.BENTO, name, version)
        if found is not None and found.whole:
            return found
        async with self._spool.receive(stream, self.copies.of(Kind.BENTO).bounds.upload) as spooled:
            card = await anyio.to_thread.run_sync(self._look, Kind.BENTO, name, version, spooled)
            said = Said(manifest=_manifest(card, spooled.size))
            await self.create_repository(Kind.BENTO, name)
            made = await self.create(Kind.BENTO, name, version, said)
            try:
                return await self.settle(Kind.BENTO, name, version, spooled, partial(self.depot.take, spooled))
            except BaseException:
                if found is None:
                    with anyio.CancelScope(shield=True):
                        await self._undo(made)
                raise

    async def settle(self, kind: Kind, name: str, version: str, spooled: Spooled, take: Take) -> Artifact:
        """From bytes to a version that is whole: 3 to 6 of the steps above.

        Raises BadRequest, BodyTooLarge, InvalidService, Conflict or DiskFull.
        """
        async with self._change(kind, name, version):
            try:
                return await self._settle(await self.get(kind, name, version), spooled, take)
            except FixTheCall as error:
                await self._fail(kind, name, version, error.message.partition("\n")[0])
                raise

    async def fail(self, kind: Kind, name: str, version: str, reason: Exception | str) -> Artifact:
        """An upload that did not come to its end; a version that is whole stays so. Raises NotFound."""
        text = str(reason).partition("\n")[0]
        async with self._change(kind, name, version):
            return await self._fail(kind, name, version, text)

    async def accept(self, kind: Kind, name: str, version: str, reason: str) -> Artifact:
        """A version that has no bytes and is complete without: a bento under development.

        Raises NotFound, or BadRequest where there should be some.
        """
        async with self._change(kind, name, version):
            found = await self.get(kind, name, version)
            manifest = (found.upload or {}).get("manifest", found.manifest)
            if not manifest.get("dev") and not found.elsewhere and not found.whole:
                raise BadRequest(f"nothing of the {kind} {found.tag} was uploaded\nupload it before it is finished")
            return await self._put(replace(found, manifest=manifest, upload=None, status=Status.SUCCESS, reason=reason))

    async def remember(self, artifact: Artifact) -> Artifact:
        """Writes what is under way of an upload."""
        return await self._put(artifact)

    async def open_tar(self, artifact: Artifact) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes. Raises NotFound for a version that has none."""
        if artifact.digest is None:
            raise NotFound(f"the {artifact.kind} {artifact.tag} has no bytes here: {artifact.status}\npush it again")
        return await self.depot.open(artifact.digest)

    async def used(self, bentos: set[str]) -> set[tuple[Kind, str, str]]:
        """What these bentos are made of: they and their models."""
        found: set[tuple[Kind, str, str]] = set()
        for tag in bentos:
            name, _, version = tag.partition(":")
            found.add((Kind.BENTO, name, version))
            artifact = await self.rows.get(Kind.BENTO, name, version)
            for model in listed_models(artifact.manifest) if artifact is not None else ():
                name, _, version = model.partition(":")
                found.add((Kind.MODEL, name, version))
        return found

    async def _settle(self, found: Artifact, spooled: Spooled, take: Take) -> Artifact:
        key = (found.kind, found.name, found.version)
        if found.digest == spooled.digest:
            return await self._whole(found, spooled, take)
        unpacked = self.copies.of(found.kind)
        there = found.whole or await anyio.to_thread.run_sync(unpacked.find, *key[1:]) is not None
        fixed = there and key in await self.used(await self.rows.bentos_of_revisions())
        if found.kind is Kind.MODEL and not fixed:
            await anyio.to_thread.run_sync(self._look, *key, spooled)  # unpacked when a bento asks for it
            return await self._whole(found, spooled, take)
        async with _in_thread(unpacked.part(spooled.path, spooled.digest, *key[1:])) as (part, _):
            if fixed:
                await self._check_same(found, part)
                if found.whole:
                    return await self._put(replace(found, upload=None))
            artifact = await self._whole(found, spooled, take)
            await anyio.to_thread.run_sync(unpacked.publish, part, *key[1:])
            return artifact

    async def _check_same(self, found: Artifact, part: Path) -> None:
        """Raises Conflict: what a revision runs on does not change. The same files in another tar are no change."""
        key = (found.kind, found.name, found.version)
        there = await anyio.to_thread.run_sync(self.copies.find, *key)
        if there is None or not await anyio.to_thread.run_sync(self.copies.of(found.kind).alike, part, *key[1:]):
            raise Conflict(
                f"the {found.kind} {found.tag} is what a revision runs on, and this one is another\n"
                "build it anew: it gets a version of its own"
            )

    async def _whole(self, found: Artifact, spooled: Spooled, take: Take) -> Artifact:
        async with self.freeing:
            self.coming.append(spooled.digest)
        try:
            await take()
            manifest = (found.upload or {}).get("manifest", found.manifest)
            whole = replace(found, digest=spooled.digest, size=spooled.size, status=Status.SUCCESS, reason="")
            return await self._put(replace(whole, manifest=manifest, upload=None))
        finally:
            self.coming.remove(spooled.digest)

    async def _update(self, found: Artifact, said: Said) -> Artifact:
        changed = replace(
            found,
            description=found.description if said.description is None else said.description,
            labels=found.labels if said.labels is None else said.labels,
        )
        if said.manifest is not None and found.whole:
            changed = replace(changed, upload={**(found.upload or {}), "manifest": said.manifest})
        elif said.manifest is not None:
            changed = replace(changed, manifest=said.manifest)
        return await self._put(changed)

    async def _fail(self, kind: Kind, name: str, version: str, reason: str) -> Artifact:
        found = await self.get(kind, name, version)
        if found.whole:
            return await self._put(replace(found, upload=None))
        return await self._put(replace(found, status=Status.FAILED, reason=reason, upload=None))

    async def _undo(self, made: Artifact) -> None:
        """Takes a version out again, unless another client has brought its bytes meanwhile."""
        async with self._change(made.kind, made.name, made.version):
            found = await self.rows.get(made.kind, made.name, made.version)
            if found is not None and not found.whole:
                await self.rows.drop([found])

    async def _put(self, artifact: Artifact) -> Artifact:
        written = replace(artifact, updated_at=self._clock())
        await self.rows.put(written)
        return written

    def _look(self, kind: Kind, name: str, version: str, spooled: Spooled) -> dict[str, Any]:
        card = look(spooled.path, self.copies.of(kind).bounds, kind)
        check_tag(card, kind, name, version)
        return card

    def _change(self, kind: Kind, name: str, version: str) -> asyncio.Lock:
        """One change of a version at a time."""
        return self._changing.setdefault((kind, name, version), asyncio.Lock())


def _made(kind: Kind, name: str, version: str, said: Said, now: float) -> Artifact:
    made = Artifact(
        kind=kind,
        name=name,
        version=version,
        uid=secrets.token_hex(16),
        description=said.description or "",
        manifest=said.manifest or {},
        labels=said.labels or (),
        build_at=said.build_at,
        created_at=now,
        updated_at=now,
    )
    return replace(made, status=Status.SUCCESS, reason="no bytes of it are kept here") if made.elsewhere else made


def _manifest(card: dict[str, Any], size: int) -> dict[str, Any]:
    """What `bentoml push` would say of a bento, out of its `bento.yaml`."""
    said = {key: card[key] for key in COPIED if key in card}
    models = list(listed_models(card))
    return {"bentoml_version": "", "entry_service": "", **said, "models": models, "size_bytes": size}


@asynccontextmanager
async def _in_thread(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A context whose beginning and end block."""
    inside = await anyio.to_thread.run_sync(context.__enter__)
    try:
        yield inside
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(context.__exit__, type(error), error, error.__traceback__)
        raise
    else:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(context.__exit__, None, None, None)
