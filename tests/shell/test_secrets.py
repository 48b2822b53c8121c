"""Secrets: sealed wherever they lie, opened for starts only, and told by nothing else."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import update

from router.core.secrets import ITEMS_MAX, SIZE_MAX, Item, Key, Secret, Wanted
from router.launch.files import VARIABLE, write_files
from router.shell import secrets as of_shell
from router.shell.secrets import Secrets
from router.store import Store
from router.store.seal import Seal
from router.store.secrets import SecretRows
from router.store.tables import secrets as table
from torpor.errors import BadRequest, Conflict, DiskFull, InvalidConfig, NotFound

VALUE = "hunter2-and-more"


def env(**variables: str | None) -> Wanted:
    return Wanted(tuple(Item(Key(name), value) for name, value in variables.items()))


def files(path: str, *items: tuple[str, str | None], value: str = VALUE) -> Wanted:
    return Wanted(tuple(Item(Key(name, sub_path), value) for name, sub_path in items), "mountfile", path)


@dataclass
class Kept:
    """The store's rows; `full`: they take nothing more."""

    rows: SecretRows
    full: bool = False

    def all(self) -> list[tuple[Secret, bytes]]:
        return self.rows.all()

    async def put(self, secret: Secret, sealed: bytes) -> None:
        if self.full:
            raise DiskFull("the disk takes nothing more\nmake room there")
        await self.rows.put(secret, sealed)

    async def delete(self, name: str) -> None:
        await self.rows.delete(name)


@dataclass
class Vault:
    """Secrets of a folder; `users` are by the secret's name."""

    folder: Path
    store: Store
    kept: Kept
    users: dict[str, list[str]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    now: float = 5.0

    def opened(self) -> Secrets:
        """As a router that starts has them."""
        made = Secrets(self.kept, Seal(self.key), lambda: self.now, lambda name: self.users.get(name, []))
        made.load()
        made.changed = self.changed.append
        return made

    @property
    def key(self) -> Path:
        return self.folder / "secret.key"

    def everything(self) -> bytes:
        """Whatever the folder holds, but for the key."""
        return b"".join(each.read_bytes() for each in self.folder.iterdir() if each != self.key)


@contextmanager
def vault(folder: Path) -> Iterator[Vault]:
    store = Store.at(folder)
    try:
        yield Vault(folder, store, Kept(SecretRows(store)))
    finally:
        store.close()


def test_a_value_is_in_no_file_and_no_text_and_comes_back_for_a_start(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        wanted = env(TOKEN=VALUE, USER="me")
        made = asyncio.run(there.opened().create("s", wanted, "ci"))
        again = there.opened()
        assert again.env(["s"]) == {"TOKEN": VALUE, "USER": "me"}
        assert again.all() == [made]
        assert (made.keys, made.creator, made.created_at) == ((Key("TOKEN"), Key("USER")), "ci", 5.0)
        assert VALUE not in repr((wanted, made, again.__dict__))
        assert b"TOKEN" in there.everything(), "this looks at the right files"
        assert VALUE.encode() not in there.everything()


def test_the_key_is_made_at_first_need_for_its_owner_alone(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        assert opened.env([]) == {}
        assert not there.key.exists()
        asyncio.run(opened.create("s", env(A="1"), ""))
        assert stat.S_IMODE(there.key.stat().st_mode) == 0o600
        first = there.key.read_bytes()
        asyncio.run(opened.create("t", env(A="2"), ""))
        assert there.key.read_bytes() == first


def test_a_key_that_others_may_read_is_refused_with_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with vault(tmp_path) as there:
        asyncio.run(there.opened().create("s", env(A="1"), ""))
        there.key.chmod(0o640)
        opened = there.opened()
        assert f"chmod 600 {there.key}" in caplog.text, "its owner is told when the router starts"
        with pytest.raises(InvalidConfig, match=f"chmod 600 {there.key}"):
            opened.env(["s"])
        with pytest.raises(InvalidConfig, match="has the mode 0640"):
            asyncio.run(opened.create("t", env(A="1"), ""))
        assert [each.name for each in opened.all()] == ["s"]
        there.key.chmod(0o600)
        assert opened.env(["s"]) == {"A": "1"}


def test_a_lost_key_is_not_replaced_by_another_behind_the_owners_back(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        asyncio.run(there.opened().create("s", env(A="1"), ""))
        key = there.key.read_bytes()
        there.key.unlink()
        opened = there.opened()
        with pytest.raises(InvalidConfig, match="put it back from a backup"):
            opened.env(["s"])
        with pytest.raises(InvalidConfig, match="is not there"):
            asyncio.run(opened.put("t", env(A="1"), ""))
        assert not there.key.exists()
        asyncio.run(opened.delete("s"))
        asyncio.run(opened.put("s", env(A="2"), ""))
        assert there.key.read_bytes() != key


def test_what_another_key_has_sealed_is_refused_and_can_be_made_anew(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        asyncio.run(there.opened().create("s", env(A=VALUE), ""))
        there.key.unlink()
        Seal(there.key).close(b"", first=True)
        opened = there.opened()
        with pytest.raises(InvalidConfig, match="sealed with another key") as raised:
            opened.env(["s"])
        assert VALUE not in str(raised.value)
        asyncio.run(opened.update("s", env(A="2")))
        assert opened.env(["s"]) == {"A": "2"}


@pytest.mark.parametrize("text", [b"", b"short", b"=" * 44])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: bytes) -> None:
    key = tmp_path / "secret.key"
    key.touch(0o600)
    key.write_bytes(text)
    with pytest.raises(InvalidConfig, match="holds no key"):
        Seal(key).close(b"", first=True)
    assert key.read_bytes() == text


def test_values_that_were_moved_to_another_secret_are_refused(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        asyncio.run(opened.create("mine", env(A=VALUE), ""))
        asyncio.run(opened.create("theirs", env(A="2"), ""))
        sealed = {secret.name: sealed for secret, sealed in there.kept.all()}
        move = update(table).where(table.c.name == "theirs").values(sealed=sealed["mine"])
        asyncio.run(there.store.write(lambda connection: connection.execute(move)))
        with pytest.raises(InvalidConfig, match="'theirs' are not its own"):
            there.opened().env(["theirs"])


def test_a_name_is_taken_known_or_not_there(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        asyncio.run(opened.create("s", env(A="1"), ""))
        with pytest.raises(Conflict, match="a secret 's' already"):
            asyncio.run(opened.create("s", env(A="2"), ""))
        for missing in (opened.get, lambda name: opened.env(["s", name]), lambda name: opened.files([name])):
            with pytest.raises(NotFound, match="no secret 'nope'"):
                missing("nope")
        for change in (opened.update("nope", env(A="2")), opened.delete("nope")):
            with pytest.raises(NotFound, match="no secret 'nope'"):
                asyncio.run(change)
        assert opened.env(["s"]) == {"A": "1"}


def test_one_that_a_live_revision_has_is_not_deleted(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        asyncio.run(opened.create("s", env(A="1"), ""))
        there.users["s"] = ["chat", "embedder"]
        with pytest.raises(Conflict, match="used by chat, embedder"):
            asyncio.run(opened.delete("s"))
        assert there.opened().env(["s"]) == {"A": "1"}
        there.users.clear()
        asyncio.run(opened.delete("s"))
        assert there.opened().all() == opened.all() == []


def test_an_update_replaces_all_but_the_values_that_it_leaves_out_and_is_told(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        before = asyncio.run(opened.create("s", env(A="1", B="2", C="3"), "ci"))
        there.now = 9.0
        after = asyncio.run(opened.update("s", env(C=None, D="4")))
        assert there.opened().env(["s"]) == {"C": "3", "D": "4"}
        assert (after.uid, after.creator, after.created_at, after.updated_at) == (before.uid, "ci", 5.0, 9.0)
        assert there.changed == ["s", "s"]
        with pytest.raises(BadRequest, match="the keys 'E' have no value"):
            asyncio.run(opened.update("s", env(E=None)))
        assert there.changed == ["s", "s"]


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        asyncio.run(opened.create("s", env(A="1"), ""))
        there.kept.full = True
        for change in (opened.put("s", env(A="2"), ""), opened.create("t", env(A="2"), "")):
            with pytest.raises(DiskFull):
                asyncio.run(change)
        assert opened.env(["s"]) == there.opened().env(["s"]) == {"A": "1"}
        assert (there.changed, [each.name for each in opened.all()]) == (["s"], ["s"])


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 64])
def test_what_cannot_be_a_secrets_name_is_refused(tmp_path: Path, name: str) -> None:
    with vault(tmp_path) as there, pytest.raises(BadRequest, match="cannot be a secret's name"):
        asyncio.run(there.opened().create(name, env(A="1"), ""))


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(()), "0 items"),
        (env(**{f"K{number}": "" for number in range(ITEMS_MAX + 1)}), "257 items"),
        (env(A=VALUE * (SIZE_MAX // len(VALUE))), "above 1048576"),
        (env(**{"A=B": VALUE}), "'A=B' cannot be an environment variable"),
        (env(A=VALUE + "\0"), "'A' cannot be an environment variable"),
        (Wanted((Item(Key("A"), VALUE), Item(Key("A"), VALUE))), "one of its keys twice"),
        (Wanted((Item(Key("A"), VALUE),), "volume"), "no type of a secret"),
        (Wanted((Item(Key("A"), VALUE),), stage="later"), "no stage of a secret"),
        (Wanted((Item(Key("A"), VALUE),), description="x" * 1001), "more than 1000 characters"),
        (files("/etc", ("a", "../b")), "no place of a file"),
        (files("/etc/..", ("a", None)), "no place of a file"),
        (files("/", ("/", None)), "no place of a file"),
        (files("/", ("x" * 256, None)), "no place of a file"),
        (files("/", ("a", "same"), ("b", "/./same")), "would lie in one place"),
        (files("/", ("a", "same"), ("b", "same/deeper")), "would lie in one place"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_without_a_word_of_its_value(
    tmp_path: Path, wanted: Wanted, says: str
) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        with pytest.raises(BadRequest, match=says) as raised:
            asyncio.run(opened.create("s", wanted, ""))
        assert VALUE not in str(raised.value)
        assert opened.all() == []
        assert not there.key.exists()


def test_all_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_shell, "SECRETS_MAX", 2)
    monkeypatch.setattr(of_shell, "TOTAL_MAX", 4000)
    with vault(tmp_path) as there:
        opened = there.opened()
        for name in ("s", "t"):
            asyncio.run(opened.create(name, env(A="1"), ""))
        with pytest.raises(BadRequest, match="2 secrets already"):
            asyncio.run(opened.put("u", env(A="1"), ""))
        with pytest.raises(BadRequest, match="above 4000"):
            asyncio.run(opened.put("t", env(A="x" * 4000), ""))
        assert opened.env(["t"]) == {"A": "1"}
        for _ in range(20):  # what it had does not count beside what it gets
            asyncio.run(opened.put("t", env(A="x" * 1000), ""))


def test_the_later_one_wins_and_what_is_for_builds_stays_there(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        build = Wanted((Item(Key("INDEX"), VALUE),), stage="build")
        both = Wanted((Item(Key("C"), "both"),), stage="all")
        for name, wanted in (("s", env(A="s", B="s")), ("t", env(A="t")), ("build", build), ("both", both)):
            asyncio.run(opened.create(name, wanted, ""))
        assert opened.env(["s", "t", "build", "both"]) == {"A": "t", "B": "s", "C": "both"}
        assert opened.env(["t", "s"]) == {"A": "s", "B": "s"}


def test_files_lie_where_they_would_under_the_root_or_the_home_of_bentoml(tmp_path: Path) -> None:
    with vault(tmp_path) as there:
        opened = there.opened()
        asyncio.run(opened.create("tls", files("/etc/tls", ("cert", None), ("key", "private/key.pem")), ""))
        asyncio.run(opened.create("home", files("$BENTOML_HOME", ("token", None), value="grüß"), ""))
        asyncio.run(opened.create("same", files("~/", ("token", None)), ""))
        asyncio.run(opened.create("env", env(A="1"), ""))
        value = VALUE.encode()
        expected = [("etc/tls/cert", value), ("etc/tls/private/key.pem", value), ("token", "grüß".encode())]
        assert opened.files(["tls", "env", "home"]) == expected
        assert opened.env(["tls", "env", "home"]) == {"A": "1"}
        with pytest.raises(BadRequest, match="would lie in one place"):
            opened.files(["home", "same"])


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    told = write_files(tmp_path, [("a/b", b"1"), ("a/c", b"2")])
    assert told == {VARIABLE: str(tmp_path / "secrets")}
    found = {str(each.relative_to(tmp_path)): each for each in tmp_path.rglob("*") if each.is_file()}
    assert {name: each.read_bytes() for name, each in found.items()} == {"secrets/a/b": b"1", "secrets/a/c": b"2"}
    assert {stat.S_IMODE(each.stat().st_mode) for each in found.values()} == {0o600}
    assert write_files(tmp_path / "none", []) == {}
