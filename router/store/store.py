"""The store: one thread writes, each write is one transaction, the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from router.core.catalog import Change, Registered, Revision
from router.core.split import Variant
from router.core.tokens import Token
from router.disk import full
from router.store import rows
from router.store.tables import endpoints, metadata
from router.store.tokens import all_tokens, put_token, use_tokens
from torpor.errors import InternalError, InvalidConfig

log = logging.getLogger("torpor.store")

NEWEST = max(path.name[:4] for path in Path(__file__).parent.glob("migrations/versions/[0-9]*.py"))
# Alembic's own table, as it makes it.
VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))

T = TypeVar("T")


def keep_private(path: Path) -> None:
    """An endpoint's environment may hold secrets: the database, and what lies beside it, is the owner's alone."""
    path.touch(mode=0o600)
    for each in path.parent.glob(f"{path.name}*"):
        each.chmod(0o600)


class Store:
    """Methods that write return when the write is on the disk."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torpor-store")

    @classmethod
    def open(cls, url: str | URL) -> Store:
        """Opens a database by its SQLAlchemy URL and brings its tables up to date. Blocks. Raises InvalidConfig."""
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _for_sqlite)
        try:
            with engine.begin() as connection:
                _bring_up(connection, engine.url)
        except DBAPIError as error:
            engine.dispose()
            raise InvalidConfig(
                f"the database {engine.url} cannot be used: {error.orig}\n"
                "see that nothing else holds it, and that this user may write it"
            ) from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @classmethod
    def at(cls, folder: Path) -> Store:
        """The database file of a data folder. One that is damaged is refused, and left as it is."""
        path = folder / "torpor.db"
        check_file(path)
        keep_private(path)
        return cls.open(URL.create("sqlite", database=str(path)))

    def close(self) -> None:
        """Returns when everything that was to be written is."""
        self._thread.shutdown(wait=True)
        self._engine.dispose()

    def load(self) -> list[Registered]:
        """Every endpoint with its live revision, those that are terminated too. Blocks."""
        return self.read(rows.live)

    def variants(self) -> list[tuple[Variant, Registered]]:
        """What is beside the live revisions. Blocks."""
        return self.read(rows.beside)

    def newest(self, name: str) -> int:
        """The number of its last revision, live or not; 0 for none. Blocks."""
        return self.read(lambda connection: rows.newest(connection, name))

    def revision(self, name: str, number: int) -> Registered:
        """One revision, as the live one would be. Blocks. Raises NotFound."""
        return self.read(lambda connection: rows.revision(connection, name, number))

    def revisions(self, name: str) -> list[Revision]:
        """Newest first. Blocks."""
        return self.read(lambda connection: rows.all_of(connection, name))

    def before(self, name: str) -> int | None:
        """The number of the revision that was live before the live one, None where there is none. Blocks."""
        return self.read(lambda connection: rows.before(connection, name))

    async def put(self, change: Change) -> None:
        """New revisions, and which of them are live and beside it: in one transaction."""
        await self.write(lambda connection: rows.put(connection, change))

    async def delete(self, name: str) -> None:
        await self.write(lambda connection: rows.delete_all(connection, name))

    async def terminate(self, name: str, whether: bool) -> None:
        await self.write(lambda connection: rows.terminate(connection, name, whether))

    async def count(self, counted: list[tuple[str, int, int, float | None]]) -> None:
        """Sets (name, calls, cold starts, last call) for many endpoints at once."""

        def run(connection: Connection) -> None:
            for name, calls, cold_starts, last_call_at in counted:
                values = {"calls": calls, "cold_starts": cold_starts, "last_call_at": last_call_at}
                connection.execute(update(endpoints).where(endpoints.c.name == name).values(**values))

        await self.write(run)

    def used(self) -> list[tuple[str, int, int]]:
        """(name, day, calls of that day) of endpoints that have or had a quota. Blocks."""
        return self.read(rows.used)

    async def use(self, used: list[tuple[str, int, int]]) -> None:
        """Sets (name, day, calls of that day) for many endpoints at once."""
        await self.write(lambda connection: rows.use(connection, used))

    def note(self, endpoint: str, kind: str, text: str) -> None:
        """Appends to an endpoint's history, some time soon; nothing where the endpoint is gone by then."""
        at = time.time()
        done = self._thread.submit(self._run, lambda connection: rows.note(connection, endpoint, at, kind, text))
        done.add_done_callback(lambda ended: ended.exception())  # `_run` has logged it

    def history(self, endpoint: str) -> list[tuple[float, str, str]]:
        """(instant, kind, text), oldest first. Blocks."""
        return self.read(lambda connection: rows.events(connection, endpoint, rows.HISTORY_KEPT * 2))

    async def events(self, endpoint: str, limit: int) -> list[tuple[float, str, str]]:
        """The last of its history, oldest first, with all that was noted before it was asked for."""
        return await self.write(lambda connection: rows.events(connection, endpoint, limit))

    def tokens(self) -> list[Token]:
        """Every token that was ever made, oldest first. Blocks."""
        with self._engine.connect() as connection:
            return all_tokens(connection)

    def read(self, run: Callable[[Connection], T]) -> T:
        """Blocks."""
        with self._engine.connect() as connection:
            return run(connection)

    async def put_token(self, token: Token) -> None:
        """Writes a new token, or what has changed of one."""
        await self.write(lambda connection: put_token(connection, token))

    async def use_tokens(self, used: dict[str, float]) -> None:
        """Sets when each was last used, by id."""
        await self.write(lambda connection: use_tokens(connection, used))

    async def write(self, run: Callable[[Connection], T]) -> T:
        """One transaction. Shielded: a caller who leaves does not leave a write half known."""
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._run, run)))

    def _run(self, run: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return run(connection)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            log.error("a write to %s failed: %s", self._engine.url, reason)
            folder = Path(self._engine.url.database or ".").parent
            if _is_full(getattr(error, "orig", None), folder):
                raise full(folder, reason) from error
            raise InternalError(
                f"what exists cannot be written down: {reason}\nlook at the disk of {self._engine.url.database}"
            ) from error


def _is_full(cause: BaseException | None, folder: Path) -> bool:
    """Whether SQLite failed because the disk takes nothing more. Where it says only that I/O failed, the disk tells."""
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # without its extension
    if code == sqlite3.SQLITE_IOERR:
        return os.statvfs(folder).f_bavail == 0
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)


def check_file(path: Path) -> None:
    """Raises InvalidConfig for a file that is no sound SQLite database. Only reads it."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        raise InvalidConfig(
            f"the database {path} cannot be opened: {error}\nsee that it is a file which this user may read and write"
        ) from None
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        reason = found.replace("\n", " ")
        raise InvalidConfig(
            f"the database {path} is damaged: {reason}\n"
            "put a backup of it in its place; or move it away, start again, and deploy again"
        )


def _for_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a deploy that was answered survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


def _bring_up(connection: Connection, url: URL) -> None:
    """The tables as the code reads them: made where there are none, migrated where they are older.

    Only the last takes Alembic, which takes 11 MB: it is not imported otherwise.
    """
    tables = inspect(connection).get_table_names()
    if VERSION.name not in tables and not tables:
        metadata.create_all(connection)
        VERSION.create(connection)
        connection.execute(insert(VERSION).values(version_num=NEWEST))
    elif VERSION.name not in tables or connection.execute(select(VERSION)).scalar() != NEWEST:
        from router.store.migrate import migrate

        migrate(connection, url)
