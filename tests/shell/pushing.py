"""Repositories over a store, a depot and folders of a temporary folder, and streams to push into them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from router.bentos import Bentos
from router.core.artifacts import Kind
from router.depot.archive import Bounds
from router.depot.copies import Copies
from router.depot.depot import Depot
from router.depot.folder import FolderDepot
from router.depot.spool import Spool
from router.depot.unpacked import Unpacked
from router.shell.direct import DirectUploads
from router.shell.repositories import Repositories
from router.store import Store
from router.store.artifacts import Artifacts

BOUNDS = Bounds()


@dataclass(frozen=True)
class Pushed:
    """`folder` holds the depot, the spool and the unpacked copies."""

    folder: Path
    store: Store
    depot: Depot
    repositories: Repositories
    direct: DirectUploads
    bentos: Bentos


@contextmanager
def pushed(
    folder: Path,
    bounds: Bounds = BOUNDS,
    depot: Callable[[Path], Depot] | None = None,
    database: Path | None = None,
) -> Iterator[Pushed]:
    """`depot`: made with the spool's folder; without it, one in a folder."""
    store = Store.at(database or folder)
    try:
        spool = Spool(folder / "incoming")
        home = FolderDepot(folder / "depot") if depot is None else depot(spool.folder)
        unpacked = {kind: Unpacked(folder / f"{kind}s", kind, bounds) for kind in Kind}
        rows = Artifacts(store)
        copies = Copies(rows, home, unpacked[Kind.BENTO], unpacked[Kind.MODEL])
        repositories = Repositories(rows, home, spool, copies)
        repositories.open()
        yield Pushed(folder, store, home, repositories, DirectUploads(repositories, spool), Bentos(copies))
    finally:
        store.close()


async def chunks(body: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
