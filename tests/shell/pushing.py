"""Repositories over a store, a depot and folders of a temporary folder, and streams to push into them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from router.bentos import Bentos
from router.core.artifacts import Artifact, Kind
from router.depot.archive import Bounds
from router.depot.copies import Copies
from router.depot.depot import Depot
from router.depot.folder import FolderDepot
from router.depot.spool import Spool
from router.depot.unpacked import Unpacked
from router.shell.direct import DirectUploads
from router.shell.repositories import Repositories, Said
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


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def bento_tar(tag: str, *models: str, **files: bytes) -> bytes:
    """As `bentoml push` sends it; `src__service` is `src/service`."""
    name, _, version = tag.partition(":")
    card = {"service": "service:It", "name": name, "version": version, "models": [{"tag": model} for model in models]}
    extra = {each.replace("__", "/"): content for each, content in files.items()}
    return tar_of({"./bento.yaml": yaml.safe_dump(card).encode(), **extra})


def model_tar(tag: str, weights: bytes) -> bytes:
    name, _, version = tag.partition(":")
    return tar_of({"./model.yaml": yaml.safe_dump({"name": name, "version": version}).encode(), "./weights": weights})


async def push(here: Pushed, kind: Kind, tag: str, body: bytes, manifest: dict[str, Any] | None = None) -> Artifact:
    """What the command line does where the upload goes through the router."""
    name, _, version = tag.partition(":")
    await here.repositories.create_repository(kind, name)
    await here.repositories.create(kind, name, version, Said(manifest=manifest or {}))
    await here.repositories.start_upload(kind, name, version)
    return await here.repositories.upload(kind, name, version, chunks(body))
