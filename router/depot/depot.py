"""What a depot does, whatever it lies in: one object for each content, named by its digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Spooled:
    """A stream that came whole, as a file of the spool: what the depot takes in."""

    path: Path
    digest: str  # SHA-256 in hex
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Object:
    """One that the depot has."""

    digest: str
    size: int  # bytes
    at: float  # when it was put, or put again; seconds since the epoch


class Depot(Protocol):
    """Objects appear whole or not at all. Raises DiskFull, or InternalError where the home cannot be reached."""

    async def take(self, spooled: Spooled) -> None:
        """Has the bytes under their digest; the spooled file may be gone afterwards."""
        ...

    async def open(self, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes of one. Raises NotFound."""
        ...

    def fetch(self, digest: str) -> AbstractContextManager[Path]:
        """One as a file of this machine, which is not to be changed. Blocks. Raises NotFound."""
        ...

    async def delete(self, digest: str) -> None:
        """Nothing where there is none."""
        ...

    async def objects(self) -> list[Object]: ...

    @property
    def direct(self) -> Direct | None:
        """The way past the router, where the home has one."""
        ...


class Direct(Protocol):
    """Links by which a client reaches the home itself, and uploads in parts. `key`: a name of an upload under way.

    Nothing that comes this way is believed: it is read back, and put under its digest by `settle`.
    """

    async def get_link(self, digest: str, name: str) -> str:
        """`name`: of the file, for who saves it."""
        ...

    async def put_link(self, key: str) -> str: ...

    async def begin(self, key: str) -> str:
        """Begins an upload in parts; its id."""
        ...

    async def part_link(self, key: str, upload: str, number: int) -> str: ...

    async def complete(self, key: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        """Parts as (number, etag). Raises BadRequest where they are not those that came."""
        ...

    async def abort(self, key: str, upload: str | None) -> None:
        """Forgets an upload under way, in parts or not; nothing where there is none."""
        ...

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """What was uploaded. Raises NotFound."""
        ...

    async def settle(self, key: str, digest: str) -> None:
        """Puts what was uploaded under its digest, without its bytes coming here again."""
        ...

    async def left(self, before: float) -> list[tuple[str, str, int]]:
        """Uploads that began before an instant and did not end: place, id ("": not in parts), bytes.

        Those of a router that was killed too.
        """
        ...

    async def forget(self, place: str, upload: str) -> None:
        """One of those."""
        ...
