"""What no revision uses any more: found, told, and freed. Nothing younger than an hour: it may be on its way."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from router.bentos import requirements_file
from router.card import read_card
from router.core.artifacts import Artifact, Kind, listed_models
from router.depot.archive import size_of
from router.depot.copies import Key
from router.launch.environment import key_of, other_python
from router.shell.repositories import Repositories
from torpor.errors import EngineFailed, EngineUnreachable, InvalidService, NotFound, TorporError

AGE = 3600.0  # seconds
UPLOAD_AGE = 86400.0  # seconds that a client may take for an upload past the router


@dataclass(frozen=True, slots=True)
class Unused:
    """One thing that can go. `kind`: bento, model, object (bytes that no version has), environment, upload, image."""

    kind: str
    name: str
    size: int  # bytes that it frees

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"


class Image(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...


class Images(Protocol):
    """The platform's, in a container engine. All of them raise EngineUnreachable where none is."""

    async def key(self, bento: Path) -> str:
        """Of a bento's image. Raises InvalidService."""
        ...

    async def key_of_given(self, given: str) -> str: ...

    async def unused(self, in_use: set[str], before: float) -> Sequence[Image]:
        """`in_use`: keys, or tags of bentos. `before`: seconds since the epoch."""
        ...

    async def remove(self, name: str) -> bool: ...


class Garbage:
    """`environments`: the folder of the installed ones. `clock`: seconds since the epoch."""

    def __init__(
        self,
        repositories: Repositories,
        environments: Path,
        clock: Callable[[], float] = time.time,
        images: Images | None = None,
    ) -> None:
        self._repositories = repositories
        self._environments = environments
        self._clock = clock
        self._images = images

    async def unused(self, in_use: set[str]) -> list[Unused]:
        """`in_use`: the tags of bentos that revisions run on, or are about to."""
        rows = await self._rows()
        keep = await self._kept(in_use)
        gone = [row for row in rows if self._old(row, keep)]
        going = {(row.kind, row.name, row.version) for row in gone}
        kept_digests = {row.digest for row in rows if (row.kind, row.name, row.version) not in going}
        found = await asyncio.to_thread(self._copies, keep, {(r.kind, r.name, r.version) for r in rows} - going)
        sizes = {each.digest: each for each in await self._repositories.depot.objects()}
        shared = dict.fromkeys(row.digest for row in gone)  # the bytes of several versions are freed once
        for row in gone:
            counted = row.digest in shared and row.digest not in kept_digests and row.digest in sizes
            key = (row.kind, row.name, row.version)
            found[key] = found.get(key, 0) + (sizes[row.digest].size if counted and row.digest else 0)
            shared.pop(row.digest, None)
        out = [Unused(kind, f"{name}:{version}", size) for (kind, name, version), size in sorted(found.items())]
        of_rows = {row.digest for row in rows} | set(self._repositories.coming)
        too_old = self._clock() - AGE
        out += [Unused("object", d, o.size) for d, o in sizes.items() if d not in of_rows and o.at < too_old]
        out += await asyncio.to_thread(lambda: list(self._unused_environments(keep)))
        return out + await self._unused_images(keep) + await self._uploads()

    async def free(self, in_use: set[str], only: Iterable[str] | None = None) -> list[Unused]:
        """Frees what is unused, of it only what `only` names by title; what was freed."""
        wanted = None if only is None else set(only)
        freed = []
        for each in await self.unused(in_use):
            if (wanted is None or each.title in wanted) and await self._free(each):
                freed.append(each)
        return freed

    async def _free(self, each: Unused) -> bool:
        """Whether it went: what was asked for meanwhile stays."""
        if each.kind == "environment":
            return await asyncio.to_thread(_removed, self._environments / each.name)
        if each.kind == "object":
            return await self._free_object(each.name)
        if each.kind == "image":
            assert self._images is not None
            return await self._images.remove(each.name)
        if each.kind == "upload":
            assert self._repositories.depot.direct is not None
            place, _, upload = each.name.partition("?")
            await self._repositories.depot.direct.forget(place, upload)
            return True
        kind, (name, _, version) = Kind(each.kind), each.name.partition(":")
        async with self._repositories.freeing:
            row = await self._repositories.rows.get(kind, name, version)
            if row is not None and (row.digest in self._repositories.coming or self._young(row.updated_at)):
                return False
            if not await asyncio.to_thread(self._repositories.copies.drop, (kind, name, version), self._clock() - AGE):
                return False
            if row is not None:
                await self._repositories.rows.drop([row])
        if row is not None and row.digest is not None:
            await self._free_object(row.digest)
        return True

    async def _free_object(self, digest: str) -> bool:
        async with self._repositories.freeing:
            rows = await self._rows()
            if digest in self._repositories.coming or any(row.digest == digest for row in rows):
                return False
            await self._repositories.depot.delete(digest)
            return True

    async def _rows(self) -> list[Artifact]:
        return [row for kind in Kind for row in await self._repositories.rows.all(kind)]

    async def _kept(self, in_use: set[str]) -> set[Key]:
        """What is said of a bento when it is pushed, and what it says itself: it may be here without a row."""
        keep = await self._repositories.used(in_use)
        return keep | await asyncio.to_thread(self._of_copies, {key for key in keep if key[0] is Kind.BENTO})

    def _of_copies(self, bentos: set[Key]) -> set[Key]:
        found: set[Key] = set()
        for kind, name, version in bentos:
            copy = self._repositories.copies.of(kind).find(name, version)
            if copy is not None:
                with suppress(TorporError):  # a broken one names nothing
                    tags = (tag.partition(":") for tag in listed_models(read_card(copy, kind)))
                    found |= {(Kind.MODEL, name, version) for name, _, version in tags}
        return found

    def _old(self, row: Artifact, keep: set[Key]) -> bool:
        key = (row.kind, row.name, row.version)
        asked = self._repositories.copies.asked.get(key, 0.0)
        return key not in keep and not self._young(max(row.updated_at, asked))

    def _young(self, at: float) -> bool:
        return at > self._clock() - AGE

    def _copies(self, keep: set[Key], rows: set[Key]) -> dict[Key, int]:
        """The bytes of unpacked copies that can go: those without a row too. Blocks."""
        found = {}
        for kind in Kind:
            for name, version, folder in self._repositories.copies.of(kind).all():
                key = (kind, name, version)
                asked = self._repositories.copies.asked.get(key, 0.0)
                if key not in keep and key not in rows and not self._young(max(asked, folder.stat().st_mtime)):
                    found[key] = size_of(folder)
        return found

    async def _unused_images(self, keep: set[Key]) -> list[Unused]:
        """None where no engine answers: nothing can be freed there."""
        if self._images is None:
            return []
        try:
            in_use = await self._images_in_use(self._images, self._bentos(keep))
            found = await self._images.unused(in_use, self._clock() - AGE)
        except (EngineUnreachable, EngineFailed):
            return []
        return [Unused("image", each.name, each.size) for each in found]

    async def _images_in_use(self, images: Images, bentos: set[Key]) -> set[str]:
        found = set()
        for kind, name, version in bentos:
            copy = await asyncio.to_thread(self._repositories.copies.of(kind).find, name, version)
            try:
                found.add(await images.key(copy) if copy is not None else f"{name}:{version}")
            except (InvalidService, NotFound):  # a broken one has no image
                continue
        return found | {await images.key_of_given(each) for each in await self._repositories.rows.images_of_revisions()}

    def _bentos(self, keep: set[Key]) -> set[Key]:
        """What is kept, and what was asked for lately: it may be on its way to a revision."""
        asked = {key for key, at in self._repositories.copies.asked.items() if self._young(at)}
        return {key for key in keep | asked if key[0] is Kind.BENTO}

    def _unused_environments(self, keep: set[Key]) -> Iterable[Unused]:
        """Blocks."""
        wanted = {self._environment(key) for key in self._bentos(keep)}
        for folder in sorted(self._environments.glob("*")):
            if folder.name not in wanted and folder.is_dir() and not self._young(folder.stat().st_mtime):
                yield Unused("environment", folder.name, size_of(folder))

    def _environment(self, key: Key) -> str | None:
        kind, name, version = key
        copy = self._repositories.copies.of(kind).find(name, version)
        listed = requirements_file(copy) if copy is not None else None
        if copy is None or listed is None:
            return None
        with suppress(TorporError):
            image = read_card(copy, kind).get("image")
            python = image.get("python_version") if isinstance(image, dict) else None
            return key_of(listed, other_python(str(python or "")))
        return None

    async def _uploads(self) -> list[Unused]:
        direct = self._repositories.depot.direct
        if direct is None:
            return []
        left = await direct.left(self._clock() - UPLOAD_AGE)
        return [Unused("upload", f"{place}?{upload}".rstrip("?"), size) for place, upload, size in left]


def _removed(folder: Path) -> bool:
    """An environment is whole as long as `complete` is in it: that goes first."""
    (folder / "complete").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
