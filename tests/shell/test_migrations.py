"""Migrations: they make what a new database has, and an older one keeps its rows."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from router.core.catalog import Change
from router.store.migrate import migrate
from router.store.store import NEWEST
from router.store.tables import metadata
from tests.shell.test_store import entry, opened

# What came after the second version.
ADDED = {
    "revisions": ("spec", "creator"),
    "endpoints": ("uid", "updated_at", "port", "terminated", "asked", "fault", "day", "used", "past"),
    "tokens": ("description",),
}


def test_the_migrations_make_what_a_new_database_has(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        migrate(connection, engine.url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert MigrationContext.configure(connection).get_current_revision() == NEWEST
    engine.dispose()


def test_a_database_of_the_first_version_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry())))
    with closing(sqlite3.connect(tmp_path / "torpor.db")) as raw, raw:
        for table in ("variants", "repositories", "artifacts", "secrets"):
            raw.execute(f"DROP TABLE {table}")
        for table, columns in ADDED.items():
            for column in columns:
                raw.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        raw.execute("UPDATE alembic_version SET version_num = '0002'")
    with opened(tmp_path) as store:
        (found,) = store.load()
        assert (found.name, found.revision, found.bento) == ("e", 1, "b:1")
        asyncio.run(store.put(Change.of(entry(revision=2))))
        assert store.newest("e") == 2
