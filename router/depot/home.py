"""Which depot a configuration names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from router.depot.depot import Depot
from router.depot.folder import FolderDepot
from torpor.errors import InvalidConfig


def depot_of(store: str, endpoint: str | None, data: Path, spool: Path) -> Depot:
    """`store`: "" is a folder of the data folder. Raises InvalidConfig."""
    if not store:
        return FolderDepot(data / "depot")
    url = urlsplit(store)
    try:
        from router.depot.s3 import S3Depot
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise InvalidConfig(
            f"store = {store!r} takes boto3, which is not installed\npip install 'torpor[s3]'"
        ) from None
    return S3Depot(url.netloc, url.path, endpoint, spool)
