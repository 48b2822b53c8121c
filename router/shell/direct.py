"""Uploads and downloads past the router, by links into the depot's home: what a client does where it is S3.

The client is told of a link when it asks for one (small files), or uploads in parts (large ones). Nothing of it is
believed: at its end the bytes are read back, hashed and looked into as if they had come through the router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from router.core.artifacts import Artifact, Kind, Status
from router.depot.depot import Direct
from router.depot.spool import Spool
from router.shell.repositories import Repositories
from torpor.errors import BadRequest, NotFound

LARGE = 100 << 20  # bytes from which a client uploads in parts: the size of one (`FILE_CHUNK_SIZE`, bentoml 1.4.39)
PARTS_MAX = 10_000  # of one upload in S3


class DirectUploads:
    """`Artifact.upload` holds what is under way: `key`, and `id` of an upload in parts."""

    def __init__(self, repositories: Repositories, spool: Spool) -> None:
        self.repositories = repositories
        self._spool = spool

    @property
    def _home(self) -> Direct | None:
        return self.repositories.depot.direct

    def strategy(self, artifact: Artifact) -> str | None:
        """`proxy`: through the router; `presigned_url`: in parts; None: by a link, where the client asks for one."""
        if self._home is None:
            return "proxy"
        size = artifact.manifest.get("size_bytes")
        large = isinstance(size, int) and size > LARGE
        return "presigned_url" if large and not artifact.whole else None

    async def put_link(self, kind: Kind, name: str, version: str) -> tuple[Artifact, str]:
        """No text where there is no way past the router. Raises NotFound."""
        found = await self.repositories.get(kind, name, version)
        if self._home is None:
            return found, ""
        key = key_of(found)
        link = await self._home.put_link(key)
        return await self._remember(found, {"key": key}), link

    async def get_link(self, kind: Kind, name: str, version: str) -> tuple[Artifact, str]:
        """As `put_link`, for downloads."""
        found = await self.repositories.get(kind, name, version)
        if self._home is None or found.digest is None:
            return found, ""
        return found, await self._home.get_link(found.digest, f"{name}-{version}.tar")

    async def begin(self, kind: Kind, name: str, version: str) -> Artifact:
        """Begins an upload in parts; an earlier one of the same version is given up. Raises BadRequest or NotFound."""
        home, found = self._needed(), await self.repositories.get(kind, name, version)
        key, before = key_of(found), (found.upload or {}).get("id")
        if before is not None:
            await home.abort(key, before)
        return await self._remember(found, {"key": key, "id": await home.begin(key)})

    async def part_link(self, kind: Kind, name: str, version: str, upload: str, number: int) -> tuple[Artifact, str]:
        """Raises BadRequest for an upload that is not the one under way."""
        found = await self._under_way(kind, name, version, upload)
        if not 1 <= number <= PARTS_MAX:
            raise BadRequest(f"part {number} of an upload\nparts are numbered from 1 to {PARTS_MAX}")
        return found, await self._needed().part_link(key_of(found), upload, number)

    async def complete(
        self, kind: Kind, name: str, version: str, upload: str, parts: Sequence[tuple[int, str]]
    ) -> Artifact:
        """Raises BadRequest where the parts are not those that came."""
        found = await self._under_way(kind, name, version, upload)
        await self._needed().complete(key_of(found), upload, parts)
        return await self._remember(found, {"key": key_of(found)})

    async def finish(self, kind: Kind, name: str, version: str, status: str, reason: str) -> Artifact:
        """The client's last word. Returns when what it uploaded is in the depot; raises what `upload` raises."""
        repositories = self.repositories
        found = await repositories.get(kind, name, version)
        upload = found.upload or {}
        if status not in (Status.SUCCESS, Status.FAILED):
            raise BadRequest(f"an upload cannot end with {status!r}\nsay success or failed")
        if status == Status.FAILED:
            if self._home is not None and "key" in upload:
                await self._home.abort(upload["key"], upload.get("id"))
            return await repositories.fail(kind, name, version, reason)
        if self._home is None or "key" not in upload:
            return await repositories.accept(kind, name, version, reason)
        most = repositories.copies.of(kind).bounds.upload
        stream = await self._home.read(upload["key"])
        async with self._spool.receive(stream, most) as spooled:
            take = partial(self._home.settle, upload["key"], spooled.digest)
            return await repositories.settle(kind, name, version, spooled, take)

    async def _under_way(self, kind: Kind, name: str, version: str, upload: str) -> Artifact:
        found = await self.repositories.get(kind, name, version)
        if (found.upload or {}).get("id") != upload:
            raise BadRequest(f"{upload!r} is not the upload of {found.tag} that is under way\nstart it again")
        return found

    async def _remember(self, found: Artifact, upload: dict[str, str]) -> Artifact:
        """Beside what waits for its end."""
        waiting = {key: value for key, value in (found.upload or {}).items() if key == "manifest"}
        return await self.repositories.remember(replace(found, upload={**waiting, **upload}))

    def _needed(self) -> Direct:
        if self._home is None:
            raise NotFound("this platform takes uploads itself, not in parts\nuse the call `upload`")
        return self._home


def key_of(artifact: Artifact) -> str:
    return f"{artifact.kind}-{artifact.uid}"
