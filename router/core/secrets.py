"""Secrets as the core sees them: what each holds and for which stage, and what cannot be one.

A value is shown by nothing here: neither by `repr`, nor by an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from torpor.errors import BadRequest

ENV = "env"  # its items are environment variables; of the other types, files
TYPES: Final = (ENV, "file", "mountfile")
RUNTIME = "runtime"
STAGES: Final = ("build", RUNTIME, "all")
SIZE_MAX = 1 << 20  # bytes of one secret: its keys and values
ITEMS_MAX = 256  # of one secret
SECRETS_MAX = 1000
TOTAL_MAX = 64 << 20  # bytes of all, sealed: they are kept in memory
TEXT_MAX = 1000  # characters of a description, a path, a key

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VARIABLE = re.compile(r"[^=\0]+")
_HOME = re.compile(r"(?:\$\{?BENTOML_HOME\}?|~)?/*")


@dataclass(frozen=True, slots=True)
class Key:
    """What is told of an item. `sub_path`: of a file, its place under the secret's path; unsaid, that is the name."""

    name: str
    sub_path: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """`value` is None where the one that the key had is kept."""

    key: Key
    value: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A secret as somebody asked for it."""

    items: tuple[Item, ...]
    type: str = ENV
    path: str = ""
    stage: str = RUNTIME
    description: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret without its values. Instants in seconds since the epoch."""

    name: str
    uid: str
    description: str
    type: str
    path: str
    stage: str
    keys: tuple[Key, ...]
    creator: str
    created_at: float
    updated_at: float

    @property
    def runs(self) -> bool:
        """Whether replicas have it."""
        return self.stage != "build"


def check_name(name: str) -> str:
    """Raises BadRequest for what cannot be a secret's name."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name!r} cannot be a secret's name\nuse 1 to 63 letters, digits and . _ -, with a letter or digit first"
        )
    return name


def check(wanted: Wanted) -> Wanted:
    """Raises BadRequest for what cannot be a secret, without its values."""
    if wanted.type not in TYPES:
        raise BadRequest(f"{wanted.type!r} is no type of a secret\nuse {', '.join(TYPES)}")
    if wanted.stage not in STAGES:
        raise BadRequest(f"{wanted.stage!r} is no stage of a secret\nuse {', '.join(STAGES)}")
    texts = (wanted.description, wanted.path, *(part for item in wanted.items for part in _texts(item.key)))
    if any(len(text) > TEXT_MAX for text in texts):
        raise BadRequest(f"a key, path or description has more than {TEXT_MAX} characters\nuse shorter ones")
    if not 0 < len(wanted.items) <= ITEMS_MAX:
        raise BadRequest(f"a secret with {len(wanted.items)} items\nuse 1 to {ITEMS_MAX}")
    names = [item.key.name for item in wanted.items]
    if len(set(names)) < len(names):
        raise BadRequest("a secret has one of its keys twice\nname each once")
    size = sum(len(item.key.name.encode()) + len((item.value or "").encode()) for item in wanted.items)
    if size > SIZE_MAX:
        raise BadRequest(f"the secret has {size} bytes, above {SIZE_MAX}\nuse a smaller one")
    if wanted.type == ENV:
        _check_variables(wanted.items)
    else:
        check_places([place(wanted.path, item.key) for item in wanted.items])
    return wanted


def _texts(key: Key) -> tuple[str, ...]:
    return (key.name, key.sub_path or "")


def _check_variables(items: tuple[Item, ...]) -> None:
    for item in items:
        if not _VARIABLE.fullmatch(item.key.name) or "\0" in (item.value or ""):
            raise BadRequest(
                f"{item.key.name!r} cannot be an environment variable\nuse a name and a value without '=' and NUL"
            )


def place(path: str, key: Key) -> str:
    """Where a file lies under the folder of a replica's secrets: as it would under the root, or $BENTOML_HOME.

    Raises BadRequest for a path that leads out of there.
    """
    inner = _HOME.sub("", path, count=1)
    parts = [part for part in f"{inner}/{key.sub_path or key.name}".split("/") if part not in ("", ".")]
    if not parts or ".." in parts or any("\0" in part or len(part.encode()) > 255 for part in parts):
        raise BadRequest(f"{path!r} and {key.sub_path or key.name!r} are no place of a file\nuse a path without '..'")
    return "/".join(parts)


def check_places(places: list[str]) -> None:
    """Raises BadRequest where two files have one place, or one lies in the other."""
    taken = set(places)
    folders = {each[:at] for each in places for at, sign in enumerate(each) if sign == "/"}
    if len(taken) < len(places) or taken & folders:
        raise BadRequest("two files of secrets would lie in one place\ngive them other keys, or secrets other paths")
