"""The durable state: endpoints, their revisions, what was learned, their history."""

from router.store.lock import DataLock
from router.store.store import Store

__all__ = ["DataLock", "Store"]
