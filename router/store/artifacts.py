"""Pushed bentos and models as rows of their tables."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, delete, insert, select, update

from router.core.artifacts import Artifact, Kind, Repository, Status
from router.store.store import Store
from router.store.tables import artifacts, repositories, revisions

T = TypeVar("T")


class Artifacts:
    """Methods that write return when the write is on the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find_repository(self, kind: Kind, name: str) -> Repository | None:
        """Blocks."""
        query = select(repositories).where(repositories.c.kind == kind, repositories.c.name == name)
        return next(iter(self._store.read(lambda connection: _repositories(connection, query))), None)

    async def repository(self, kind: Kind, name: str) -> Repository | None:
        return await asyncio.to_thread(self.find_repository, kind, name)

    async def repositories(self, kind: Kind) -> dict[str, Repository]:
        """By name."""
        query = select(repositories).where(repositories.c.kind == kind)
        return {each.name: each for each in await self._read(lambda connection: _repositories(connection, query))}

    async def put_repository(self, repository: Repository) -> None:
        """A new one, or the present state of one that is there."""
        await self._store.write(lambda connection: _put(connection, repositories, ("kind", "name"), repository))

    def find(self, kind: Kind, name: str, version: str) -> Artifact | None:
        """Blocks."""
        query = select(artifacts).where(*_one(kind, name, version))
        return next(iter(self._store.read(lambda connection: _artifacts(connection, query))), None)

    async def get(self, kind: Kind, name: str, version: str) -> Artifact | None:
        return await asyncio.to_thread(self.find, kind, name, version)

    async def put(self, artifact: Artifact) -> None:
        """A new one, or the present state of one that is there."""
        await self._store.write(lambda connection: _put(connection, artifacts, ("kind", "name", "version"), artifact))

    async def all(self, kind: Kind, name: str | None = None) -> list[Artifact]:
        """Newest first."""
        query = select(artifacts).where(artifacts.c.kind == kind)
        query = query if name is None else query.where(artifacts.c.name == name)
        query = query.order_by(artifacts.c.created_at.desc(), artifacts.c.version)
        return await self._read(lambda connection: _artifacts(connection, query))

    async def drop(self, gone: Iterable[Artifact]) -> None:
        """Takes versions out, and repositories that are empty then."""

        def run(connection: Connection) -> None:
            for each in gone:
                connection.execute(delete(artifacts).where(*_one(each.kind, each.name, each.version)))
                of_name = select(artifacts.c.version).where(
                    artifacts.c.kind == each.kind, artifacts.c.name == each.name
                )
                if connection.execute(of_name).first() is None:
                    empty = (repositories.c.kind == each.kind, repositories.c.name == each.name)
                    connection.execute(delete(repositories).where(*empty))

        await self._store.write(run)

    async def bentos_of_revisions(self) -> set[str]:
        """The tags that revisions run on: live ones, and those that are kept to go back to."""
        return await self._read(lambda connection: set(connection.scalars(select(revisions.c.bento).distinct())))

    async def images_of_revisions(self) -> set[str]:
        """The references of images that revisions were given, in place of ones built from their bentos."""
        told = await self._read(lambda connection: list(connection.scalars(select(revisions.c.settings))))
        return {settings["image"] for settings in told if settings.get("image")}

    async def _read(self, run: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(self._store.read, run)


def _one(kind: Kind, name: str, version: str) -> tuple[Any, ...]:
    return artifacts.c.kind == kind, artifacts.c.name == name, artifacts.c.version == version


def _put(connection: Connection, table: Table, key: tuple[str, ...], entry: Repository | Artifact) -> None:
    values = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
    values["labels"] = list(entry.labels)
    same = [table.c[each] == values[each] for each in key]
    if connection.execute(update(table).where(*same).values(**values)).rowcount == 0:
        connection.execute(insert(table).values(**values))


def _repositories(connection: Connection, query: Any) -> list[Repository]:
    return [
        Repository(**{**row, "kind": Kind(row["kind"]), "labels": tuple(row["labels"])})
        for row in connection.execute(query).mappings()
    ]


def _artifacts(connection: Connection, query: Any) -> list[Artifact]:
    return [
        Artifact(**{**row, "kind": Kind(row["kind"]), "status": Status(row["status"]), "labels": tuple(row["labels"])})
        for row in connection.execute(query).mappings()
    ]
