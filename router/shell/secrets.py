"""The secrets that there are: sealed in memory and in the store, opened for the starts of replicas only."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from secrets import token_hex
from typing import Protocol

from router.core.secrets import (
    ENV,
    SECRETS_MAX,
    TOTAL_MAX,
    Item,
    Key,
    Secret,
    Wanted,
    check,
    check_name,
    check_places,
    place,
)
from torpor.errors import BadRequest, Conflict, InvalidConfig, NotFound

log = logging.getLogger("torpor.secrets")


class Kept(Protocol):
    """Where secrets are durable, each with its sealed values."""

    def all(self) -> list[tuple[Secret, bytes]]: ...

    async def put(self, secret: Secret, sealed: bytes) -> None: ...

    async def delete(self, name: str) -> None: ...


class Seal(Protocol):
    """What keeps values from who reads the store. It blocks, and raises InvalidConfig where it has no key for them."""

    def close(self, text: bytes, *, first: bool) -> bytes:
        """`first`: nothing was ever sealed, so that the key may be made."""
        ...

    def open(self, sealed: bytes) -> bytes: ...


class Secrets:
    """`clock`: seconds since the epoch; `users`: endpoints whose live revisions have the secret of a name.

    `changed` is called with the name once a secret has other values.
    """

    def __init__(self, kept: Kept, seal: Seal, clock: Callable[[], float], users: Callable[[str], list[str]]) -> None:
        self._kept = kept
        self._seal = seal
        self._clock = clock
        self.users = users
        self.changed: Callable[[str], None] = lambda name: None
        self._all: dict[str, tuple[Secret, bytes]] = {}
        self._writing = asyncio.Lock()

    def load(self) -> None:
        """What the store has. Blocks. A key that cannot be used is told now, and refuses the starts that need it."""
        self._all = {secret.name: (secret, sealed) for secret, sealed in self._kept.all()}
        try:
            for secret, sealed in list(self._all.values())[:1]:
                self._values(secret, sealed)
        except InvalidConfig as error:
            log.warning("%s", error.message.replace("\n", "; "))

    def all(self) -> list[Secret]:
        """By name."""
        return [self._all[name][0] for name in sorted(self._all)]

    def get(self, name: str) -> Secret:
        """Raises NotFound."""
        return self._found(name)[0]

    async def create(self, name: str, wanted: Wanted, creator: str) -> Secret:
        """Raises BadRequest, and Conflict for a name that is taken."""
        async with self._writing:
            if name in self._all:
                raise Conflict(f"there is a secret {name!r} already\nchoose another name, or update it")
            return await self._write(self._new(name, creator), wanted)

    async def update(self, name: str, wanted: Wanted) -> Secret:
        """All that it is, but for the values that are left out. Raises BadRequest and NotFound."""
        async with self._writing:
            return await self._write(self.get(name), wanted)

    async def put(self, name: str, wanted: Wanted, creator: str) -> Secret:
        """Made, or changed. Raises BadRequest."""
        async with self._writing:
            there = self._all.get(name)
            return await self._write(there[0] if there else self._new(name, creator), wanted)

    async def delete(self, name: str) -> Secret:
        """Raises NotFound, and Conflict while a live revision has it."""
        async with self._writing:
            secret, users = self.get(name), self.users(name)
            if users:
                raise Conflict(
                    f"the secret {name!r} is used by {', '.join(users)}\ndeploy these without it, or delete them first"
                )
            await self._kept.delete(name)
            del self._all[name]
            return secret

    def env(self, names: Iterable[str]) -> dict[str, str]:
        """The variables of these; of two that have one key, the later one's. Raises NotFound by name."""
        return {
            key.name: value
            for secret, sealed in self._running(names)
            if secret.type == ENV
            for key, value in self._values(secret, sealed)
        }

    def files(self, names: Iterable[str]) -> list[tuple[str, bytes]]:
        """The files of these, by their place under the replica's folder of secrets.

        Raises NotFound by name, and BadRequest where two would lie in one place.
        """
        found = [
            (place(secret.path, key), value.encode())
            for secret, sealed in self._running(names)
            if secret.type != ENV
            for key, value in self._values(secret, sealed)
        ]
        check_places([where for where, _ in found])
        return found

    def _running(self, names: Iterable[str]) -> list[tuple[Secret, bytes]]:
        """Those that replicas have; all have to be there."""
        return [found for found in map(self._found, names) if found[0].runs]

    def _found(self, name: str) -> tuple[Secret, bytes]:
        found = self._all.get(name)
        if found is None:
            raise NotFound(f"there is no secret {name!r}\nmake it: torpor secrets set {name} KEY=VALUE")
        return found

    def _new(self, name: str, creator: str) -> Secret:
        if len(self._all) >= SECRETS_MAX:
            raise BadRequest(f"there are {SECRETS_MAX} secrets already, as many as may be\ndelete one first")
        now = self._clock()
        return Secret(check_name(name), token_hex(16), "", ENV, "", "", (), creator, now, now)

    async def _write(self, before: Secret, wanted: Wanted) -> Secret:
        """The secret as it is now: on the disk first."""
        check(wanted)
        name, items = before.name, await asyncio.to_thread(self._filled, before, wanted.items)
        secret = replace(
            before,
            description=wanted.description,
            type=wanted.type,
            path=wanted.path,
            stage=wanted.stage,
            keys=tuple(key for key, _ in items),
            updated_at=self._clock(),
        )
        sealed = await asyncio.to_thread(self._sealed, secret, items)
        total = len(sealed) + sum(len(each) for other, (_, each) in self._all.items() if other != name)
        if total > TOTAL_MAX:
            raise BadRequest(f"all secrets together would have {total} bytes, above {TOTAL_MAX}\ndelete some first")
        await self._kept.put(secret, sealed)
        self._all[name] = (secret, sealed)
        self.changed(name)
        return secret

    def _filled(self, before: Secret, items: tuple[Item, ...]) -> list[tuple[Key, str]]:
        """With the values that are kept. Blocks."""
        if all(item.value is not None for item in items):  # also what cannot be opened any more can be written anew
            return [(item.key, item.value or "") for item in items]
        there = self._all.get(before.name)
        kept = {key.name: value for key, value in self._values(*there)} if there else {}
        missing = [item.key.name for item in items if item.value is None and item.key.name not in kept]
        if missing:
            raise BadRequest(f"the keys {', '.join(map(repr, missing))} have no value\ngive each one")
        return [(item.key, kept[item.key.name] if item.value is None else item.value) for item in items]

    def _sealed(self, secret: Secret, items: list[tuple[Key, str]]) -> bytes:
        """Blocks."""
        text = json.dumps({"uid": secret.uid, "values": [value for _, value in items]}).encode()
        return self._seal.close(text, first=not self._all)

    def _values(self, secret: Secret, sealed: bytes) -> list[tuple[Key, str]]:
        """Raises InvalidConfig for values that are another secret's: somebody has moved them in the store."""
        opened = json.loads(self._seal.open(sealed))
        if opened["uid"] != secret.uid or len(opened["values"]) != len(secret.keys):
            raise InvalidConfig(f"the values of the secret {secret.name!r} are not its own\nmake it again")
        return list(zip(secret.keys, opened["values"], strict=True))
