"""Deploys that were accepted and have not become live: rows of endpoints, which a kill leaves or clears whole."""

from __future__ import annotations

import time

from sqlalchemy import Connection, delete, insert, select, update

from router.core.catalog import Fault
from router.store.store import Store
from router.store.tables import endpoints, history


def begin(connection: Connection, name: str, uid: str, created_at: float) -> None:
    """A name is taken by its first deploy; events of it are kept from now on."""
    connection.execute(delete(endpoints).where((endpoints.c.name == name) & (endpoints.c.revision == 0)))
    connection.execute(
        insert(endpoints).values(name=name, revision=0, uid=uid, created_at=created_at, calls=0, cold_starts=0)
    )


def fail(connection: Connection, fault: Fault) -> None:
    values = {"fault": fault.text, "asked": fault.asked, "updated_at": time.time()}
    connection.execute(update(endpoints).where(endpoints.c.name == fault.name).values(**values))


def drop(connection: Connection, name: str) -> None:
    """A name that never had a live revision is free again."""
    unborn = (endpoints.c.name == name) & (endpoints.c.revision == 0)
    if connection.execute(delete(endpoints).where(unborn)).rowcount:
        connection.execute(delete(history).where(history.c.endpoint == name))


def clear(connection: Connection) -> None:
    """First deploys in whose midst a router was killed: nothing of them stays."""
    unborn = (endpoints.c.revision == 0) & endpoints.c.fault.is_(None)
    for name in connection.execute(select(endpoints.c.name).where(unborn)).scalars().all():
        drop(connection, name)


def faults(connection: Connection) -> list[Fault]:
    query = select(endpoints).where(endpoints.c.fault.is_not(None)).order_by(endpoints.c.name)
    return [
        Fault(row.name, row.uid or row.name, row.created_at, row.revision, row.fault, row.asked or {})
        for row in connection.execute(query)
    ]


class Faults:
    """Writes return when they are on the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Fault]:
        """Blocks."""
        return self._store.read(faults)

    async def clear(self) -> None:
        await self._store.write(clear)

    async def begin(self, name: str, uid: str, created_at: float) -> None:
        await self._store.write(lambda connection: begin(connection, name, uid, created_at))

    async def fail(self, fault: Fault) -> None:
        await self._store.write(lambda connection: fail(connection, fault))

    async def drop(self, name: str) -> None:
        await self._store.write(lambda connection: drop(connection, name))

    def note(self, name: str, kind: str, text: str) -> None:
        self._store.note(name, kind, text)
