"""The repositories of bentos and models, put together: their rows, their bytes, their unpacked copies."""

from __future__ import annotations

from router.config import Config
from router.core.artifacts import Kind
from router.depot.archive import Bounds
from router.depot.copies import Copies
from router.depot.home import depot_of
from router.depot.spool import Spool
from router.depot.unpacked import Unpacked
from router.shell.direct import DirectUploads
from router.shell.repositories import Repositories
from router.store import Store
from router.store.artifacts import Artifacts


def pushed_of(config: Config, store: Store) -> DirectUploads:
    """Nothing runs yet. Raises InvalidConfig."""
    spool = Spool(config.data / "incoming")
    depot = depot_of(config.store, config.store_endpoint, config.data, spool.folder)
    bentos = Unpacked(config.data / "bentos", Kind.BENTO, Bounds())
    of_models = Bounds(upload=config.max_upload, unpacked=config.max_upload)
    models = Unpacked(config.data / "models", Kind.MODEL, of_models)
    rows = Artifacts(store)
    return DirectUploads(Repositories(rows, depot, spool, Copies(rows, depot, bentos, models)), spool)
