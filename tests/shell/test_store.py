"""The durable state: what is written is there after any end, and what is damaged is refused and left alone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from router.core.catalog import Change, Learned, Registered
from router.core.settings import Settings
from router.core.tokens import Token
from router.store import DataLock, Store, rows
from router.store.tables import metadata
from torpor.errors import Conflict, DiskFull, InvalidConfig

ROOT = Path(__file__).parents[2]


def unlike(default: Any) -> Any:
    """Another value of the kind; of what may be unset a number."""
    kinds: dict[type, Any] = {bool: True, int: 7, float: 1.5, str: "other", type(None): 7}
    return kinds[type(default)] if default != kinds[type(default)] else default + 1


FULL = Registered(
    name="embedder",
    revision=3,
    bento="embedding:abc",
    env={"GREETING": "grüß Gott", "EMPTY": ""},
    settings=Settings(**{each.name: unlike(getattr(Settings(), each.name)) for each in dataclasses.fields(Settings)}),
    created_at=1_700_000_000.25,
    learned=Learned(
        modules=("numpy", "tokenizers"),
        schema={"name": "Embedding", "routes": [{"name": "embed", "batchable": True}]},
        facts={"provider": "CPUExecutionProvider", "sessions": [{"path": "/m", "threads": 1}]},
        phases={"fork": 0.005, "load": 0.1},
    ),
    spec={"secrets": ["s"], "access": True},
    creator="ci",
    uid="u",
    deployed_at=1_700_000_000.5,
)


def entry(name: str = "e", revision: int = 1, **rest: Any) -> Registered:
    return Registered(name, revision, "b:1", {}, Settings(**rest), 1.0, uid="u", deployed_at=2.0)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    store = Store.at(folder)
    try:
        yield store
    finally:
        store.close()


def test_every_field_of_an_endpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    for field in dataclasses.fields(Settings):
        assert getattr(FULL.settings, field.name) != getattr(Settings(), field.name), "a default proves nothing"
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(FULL)))
        asyncio.run(store.count([("embedder", 70, 7, 1_700_000_001.5)]))
    with opened(tmp_path) as store:
        assert store.load() == [dataclasses.replace(FULL, calls=70, cold_starts=7, last_call_at=1_700_000_001.5)]


def test_tokens_come_back_as_they_were_written_with_their_last_use(tmp_path: Path) -> None:
    first = Token("a1", "ci", bytes(range(32)), ("call:e", "call:f"), 1.5, expires_at=9.5)
    second = Token("b2", "me", bytes(32), ("admin",), 2.5)
    with opened(tmp_path) as store:
        for each in (first, second, dataclasses.replace(second, revoked=True)):
            asyncio.run(store.put_token(each))
        asyncio.run(store.use_tokens({"a1": 3.5, "nobody": 1.0}))
    with opened(tmp_path) as store:
        used, revoked = dataclasses.replace(first, last_used_at=3.5), dataclasses.replace(second, revoked=True)
        assert store.tokens() == [used, revoked]


def test_a_new_revision_is_the_live_one_and_keeps_the_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry(idle_after=1.0))))
        asyncio.run(store.count([("e", 5, 2, 9.0), ("nobody", 1, 1, 1.0)]))
        asyncio.run(store.put(Change.of(entry(revision=2, idle_after=2.0))))
        [live] = store.load()
        assert (live.revision, live.settings.idle_after, live.calls, live.cold_starts) == (2, 2.0, 5, 2)


def test_a_deleted_endpoint_leaves_no_row(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for name in ("e", "other"):
            asyncio.run(store.put(Change.of(entry(name))))
            store.note(name, "woke", "it woke")
        asyncio.run(store.delete("e"))
        assert [each.name for each in store.load()] == ["other"]
        assert store.history("e") == []
        asyncio.run(store.put(Change.of(entry())))
        assert store.load()[0].revision == 1, "its name begins afresh"


def test_settings_and_facts_that_a_newer_version_wrote_are_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry())))
        with closing(sqlite3.connect(tmp_path / "torpor.db")) as raw, raw:
            for column in ("settings", "learned"):
                raw.execute(f"UPDATE revisions SET {column} = json_set({column}, '$.from_the_future', 1)")
        assert store.load() == [entry()]


def test_an_empty_folder_gets_the_tables_that_the_code_reads(tmp_path: Path) -> None:
    opened_once = Store.at(tmp_path)
    opened_once.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'torpor.db'}")
    with engine.connect() as connection:
        found = set(inspect(connection).get_table_names())
        context = MigrationContext.configure(connection)
        own = {"endpoints", "revisions", "history", "tokens", "variants", "repositories", "artifacts", "secrets"}
        assert found == own | {"alembic_version"}
        assert compare_metadata(context, metadata) == [], "tables.py and the migrations say the same"
    engine.dispose()
    assert (tmp_path / "torpor.db").exists()
    assert not (tmp_path / "torpor.db-wal").exists(), "a closed store leaves one file"


def test_a_migrated_database_is_opened_again_and_again(tmp_path: Path) -> None:
    for revision in (1, 2, 3):
        with opened(tmp_path) as store:
            asyncio.run(store.put(Change.of(entry(revision=revision))))
    with opened(tmp_path) as store:
        assert store.load()[0].revision == 3


def test_the_event_loop_goes_on_while_a_write_waits_for_the_disk(tmp_path: Path) -> None:
    async def scenario(store: Store) -> int:
        with closing(sqlite3.connect(tmp_path / "torpor.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(store.put(Change.of(entry())))
            for turn in range(200):
                await asyncio.sleep(0)
                assert not writing.done(), f"turn {turn}: it cannot have been written yet"
            assert store.load() == [], "readers do not wait for writers"
            other.execute("ROLLBACK")
        await writing
        return len(store.load())

    with opened(tmp_path) as store:
        assert asyncio.run(scenario(store)) == 1


def test_a_write_goes_on_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        with closing(sqlite3.connect(tmp_path / "torpor.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(store.put(Change.of(entry())))
            await asyncio.sleep(0.01)
            writing.cancel()
            await asyncio.wait([writing])
            other.execute("ROLLBACK")

    with opened(tmp_path) as store:
        asyncio.run(scenario(store))
    with opened(tmp_path) as store:
        assert store.load() == [entry()]


def test_notes_are_kept_in_order_and_only_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HISTORY_KEPT", 30)
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry())))
        store.note("nobody", "woke", "of an endpoint that is gone")
        for number in range(150):
            store.note("e", "woke", f"number {number}")
    with opened(tmp_path) as store:
        assert store.history("nobody") == []
        notes = [text for _, _, text in store.history("e")]
        assert notes[-1] == "number 149"
        assert notes == [f"number {number}" for number in range(150 - len(notes), 150)]
        assert 30 <= len(notes) <= 130


def test_a_full_disk_is_an_error_of_the_write_and_the_store_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    big = dataclasses.replace(entry(), env={"BIG": "x" * 1_000_000})

    def bounded(pages: int) -> Callable[[Any], Any]:
        return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()

    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry("before"))))
        asyncio.run(store.write(bounded(1)))  # SQLite takes what the file has now
        with pytest.raises(DiskFull, match=f"{tmp_path} takes nothing more: database or disk is full"):
            asyncio.run(store.put(Change.of(big)))
        store.note("before", "woke", "y" * 1_000_000)
        asyncio.run(store.write(bounded(1 << 30)))
        asyncio.run(store.put(Change.of(entry("after"))))
        assert [each.name for each in store.load()] == ["after", "before"]
    assert caplog.text.count("database or disk is full") == 2, "a lost note is told too"


WRITER = """
import asyncio, sys
from pathlib import Path
from router.store import Store
from router.core.catalog import Change
from tests.shell.test_store import entry

async def main(store):
    for revision in range(1, 100_000):
        await store.put(Change.of(entry(revision=revision)))
        print(revision, flush=True)

asyncio.run(main(Store.at(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_process_killed_while_it_writes_leaves_the_state_before_or_after(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    after = random.Random(seed).randint(1, 40)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        answered = [int(writer.stdout.readline()) for _ in range(after)][-1]
        os.kill(writer.pid, signal.SIGKILL)
        answered = max([answered, *map(int, writer.stdout.read().split())])
    with opened(tmp_path) as store:
        [live] = store.load()
        assert live.revision in (answered, answered + 1), "what was answered is there"
        asyncio.run(store.put(Change.of(entry(revision=live.revision + 1))))
        assert store.load()[0].revision == live.revision + 1


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(20_000))


def text(path: Path) -> None:
    path.write_text("this is a note of mine\n" * 100)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribbled(path: Path) -> None:
    """A page that is in use is overwritten; the header is whole."""
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)


@pytest.mark.parametrize("damage", [garbage, text, cut, scribbled], ids=lambda damage: str(damage.__name__))
def test_a_damaged_database_is_refused_with_the_remedy_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with opened(tmp_path) as store:
        for number in range(50):
            asyncio.run(store.put(Change.of(entry(f"e{number}"))))
    path = tmp_path / "torpor.db"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(InvalidConfig) as raised:
        Store.at(tmp_path)
    what, remedy = raised.value.message.split("\n")
    assert what.startswith(f"the database {path} is damaged: ")
    assert "backup" in remedy
    assert "move it away" in remedy
    assert path.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry())))
    path = tmp_path / "torpor.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidConfig, match=r"newer torpor .*9999.*\ninstall that version, or use another"):
        Store.at(tmp_path)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT version_num, (SELECT count(*) FROM revisions) FROM alembic_version").fetchall() == [
            ("9999", 1)
        ]


def test_a_database_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torpor.db").mkdir()
    with pytest.raises(InvalidConfig, match=r"cannot be opened: .*\nsee that it is a file"):
        Store.at(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from router.store import DataLock
lock = DataLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(3600)
"""


def test_a_data_folder_has_one_router_until_that_has_ended_however_it_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=rf"a router \(pid {holder.pid}\) uses .* already\nstop it with"):
            DataLock(tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
    DataLock(tmp_path).close()
    lock = DataLock(tmp_path)
    with pytest.raises(Conflict):
        DataLock(tmp_path)
    lock.close()


def test_a_data_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps("in the way"))
    with pytest.raises(InvalidConfig, match=r"cannot be used: .*\nname another with --data"):
        DataLock(tmp_path / "file" / "data")


def test_the_database_is_the_owners_alone_also_in_a_folder_that_others_may_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "torpor.db").touch(mode=0o644)
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry(idle_after=1.0))))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("torpor.db*")}
    assert set(modes.values()) == {0o600}, modes
    assert "torpor.db-wal" in modes


def test_a_rollback_goes_back_one_revision_after_the_other_and_not_to_what_was_left(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in (1, 2, 3):
            asyncio.run(store.put(Change.of(entry(revision=number))))
        assert store.before("e") == 2
        asyncio.run(store.put(Change("e", live=entry(revision=2))))
        assert store.before("e") == 1
        asyncio.run(store.put(Change("e", (entry(revision=4),), entry(revision=4))))
        assert store.before("e") == 2, "3 was left behind"
        asyncio.run(store.put(Change("e", live=entry(revision=1))))
        assert store.before("e") is None
        assert store.before("nobody") is None
        assert [each.number for each in store.revisions("e")] == [4, 3, 2, 1]


def test_events_are_the_last_ones_with_what_was_noted_just_before(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        asyncio.run(store.put(Change.of(entry())))
        for number in range(5):
            store.note("e", "deployed", str(number))
        assert [text for _, _, text in asyncio.run(store.events("e", 2))] == ["3", "4"]
        assert asyncio.run(store.events("nobody", 2)) == []


def test_the_calls_of_a_day_are_kept_with_the_endpoint_and_go_with_it(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        for name in ("e", "f", "unlimited"):
            await store.put(Change.of(entry(name)))
        await store.use([("e", 20_000, 3), ("f", 20_000, 1), ("gone", 20_000, 5)])
        await store.use([("e", 20_001, 2)])
        await store.put(Change.of(entry("e", 2)))
        assert store.used() == [("e", 20_001, 2), ("f", 20_000, 1)]
        await store.delete("e")
        await store.put(Change.of(entry("e")))

    with opened(tmp_path) as store:
        asyncio.run(scenario(store))
    with opened(tmp_path) as store:
        assert store.used() == [("f", 20_000, 1)]
