"""The store: one thread writes, each write is one transaction, the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import dataclasses
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

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, delete, event, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from router.core.catalog import Learned, Registered
from router.core.settings import Settings
from router.core.tokens import Token
from router.disk import full
from router.store.tables import endpoints, history, revisions
from router.store.tokens import all_tokens, put_token, use_tokens
from torpor.errors import InternalError, InvalidConfig

log = logging.getLogger("torpor.store")

T = TypeVar("T")

SETTINGS, LEARNED = ({field.name for field in dataclasses.fields(kind)} for kind in (Settings, Learned))
HISTORY_KEPT = 1000  # rows an endpoint


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
                _migrate(connection, engine.url)
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
        """Every endpoint with its live revision. Blocks."""
        live = (endpoints.c.name == revisions.c.endpoint) & (endpoints.c.revision == revisions.c.number)
        query = select(endpoints, revisions).join(revisions, live).order_by(endpoints.c.name)
        with self._engine.connect() as connection:
            return [_registered(row._mapping) for row in connection.execute(query)]

    async def put(self, entry: Registered) -> None:
        """A new revision becomes its endpoint's live one, in one transaction."""
        await self.write(lambda connection: _put(connection, entry))

    async def delete(self, name: str) -> None:
        def run(connection: Connection) -> None:
            connection.execute(delete(history).where(history.c.endpoint == name))
            connection.execute(delete(revisions).where(revisions.c.endpoint == name))
            connection.execute(delete(endpoints).where(endpoints.c.name == name))

        await self.write(run)

    async def count(self, rows: list[tuple[str, int, int, float | None]]) -> None:
        """Sets (name, calls, cold starts, last call) for many endpoints at once."""

        def run(connection: Connection) -> None:
            for name, calls, cold_starts, last_call_at in rows:
                values = {"calls": calls, "cold_starts": cold_starts, "last_call_at": last_call_at}
                connection.execute(update(endpoints).where(endpoints.c.name == name).values(**values))

        await self.write(run)

    def note(self, endpoint: str, kind: str, text: str) -> None:
        """Appends to an endpoint's history, some time soon; nothing where the endpoint is gone by then."""
        at = time.time()
        done = self._thread.submit(self._run, lambda connection: _note(connection, endpoint, at, kind, text))
        done.add_done_callback(lambda ended: ended.exception())  # `_run` has logged it

    def history(self, endpoint: str) -> list[tuple[float, str, str]]:
        """(instant, kind, text), oldest first. Blocks."""
        query = select(history.c.at, history.c.kind, history.c.text).where(history.c.endpoint == endpoint)
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query.order_by(history.c.id))]

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


def _put(connection: Connection, entry: Registered) -> None:
    connection.execute(
        insert(revisions).values(
            endpoint=entry.name,
            number=entry.revision,
            bento=entry.bento,
            env=entry.env,
            settings=dataclasses.asdict(entry.settings),
            created_at=time.time(),
            learned=dataclasses.asdict(entry.learned),
        )
    )
    known = connection.execute(select(endpoints.c.name).where(endpoints.c.name == entry.name)).first()
    if known:
        live = {"revision": entry.revision}
        connection.execute(update(endpoints).where(endpoints.c.name == entry.name).values(**live))
    else:
        row = {"name": entry.name, "revision": entry.revision, "created_at": entry.created_at}
        connection.execute(insert(endpoints).values(**row, calls=0, cold_starts=0))


def _note(connection: Connection, endpoint: str, at: float, kind: str, text: str) -> None:
    if connection.execute(select(endpoints.c.name).where(endpoints.c.name == endpoint)).first() is None:
        return
    row = connection.execute(insert(history).values(endpoint=endpoint, at=at, kind=kind, text=text))
    newest = row.inserted_primary_key
    if newest is not None and newest[0] % 100 == 0:
        kept = (
            select(history.c.id).where(history.c.endpoint == endpoint).order_by(history.c.id.desc()).limit(HISTORY_KEPT)
        )
        old = (history.c.endpoint == endpoint) & history.c.id.not_in(kept)
        connection.execute(delete(history).where(old))


def _registered(row: Any) -> Registered:
    learned = {key: value for key, value in row["learned"].items() if key in LEARNED}
    return Registered(
        name=row["name"],
        revision=row["revision"],
        bento=row["bento"],
        env=row["env"],
        settings=Settings(**{key: value for key, value in row["settings"].items() if key in SETTINGS}),
        created_at=row[endpoints.c.created_at],
        learned=Learned(**{**learned, "modules": tuple(learned["modules"])}),
        calls=row["calls"],
        cold_starts=row["cold_starts"],
        last_call_at=row["last_call_at"],
    )


def _for_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a deploy that was answered survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


def _migrate(connection: Connection, url: URL) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        newest = ScriptDirectory.from_config(config).get_current_head()
        raise InvalidConfig(
            f"the database {url} was written by a newer torpor ({error}; this one knows {newest})\n"
            "install that version, or use another data folder"
        ) from error
