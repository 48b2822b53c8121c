"""The tokens that there are: in memory for every request, written through to the store."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from typing import Protocol

from router.core.tokens import Token, check_name, check_scopes
from torpor.errors import BadRequest, Conflict, NotFound

EXPIRES_MAX = 100 * 365 * 86400.0  # seconds
_KEY = 8  # bytes of a digest by which it is found; the whole is compared then, in constant time


class Kept(Protocol):
    """Where tokens are durable."""

    def tokens(self) -> list[Token]: ...

    async def put_token(self, token: Token) -> None: ...

    async def use_tokens(self, used: dict[str, float]) -> None: ...


class Tokens:
    """`clock`: seconds since the epoch."""

    def __init__(self, kept: Kept, clock: Callable[[], float]) -> None:
        self._kept = kept
        self._clock = clock
        self._all: dict[str, Token] = {}
        self._by_key: dict[bytes, Token] = {}
        self._used: dict[str, float] = {}  # when each was used since that was last written
        self._writing = asyncio.Lock()

    def load(self) -> None:
        """What the store has. Blocks."""
        for token in self._kept.tokens():
            self._put(token)

    def any(self) -> bool:
        """Whether one was ever made: its end does not unmake it."""
        return bool(self._all)

    def usable(self) -> bool:
        """Whether anybody may come in."""
        now = self._clock()
        return any(token.usable(now) for token in self._all.values())

    def all(self) -> list[Token]:
        """In the order of their making, with the last use as it is known now."""
        return [dataclasses.replace(t, last_used_at=self._used.get(t.id, t.last_used_at)) for t in self._all.values()]

    def known(self, digest: bytes) -> Token | None:
        """The usable token whose text has this SHA-256; it counts as used now."""
        token = self._by_key.get(digest[:_KEY])
        now = self._clock()
        if token is None or not hmac.compare_digest(token.digest, digest) or not token.usable(now):
            return None
        self._used[token.id] = now
        return token

    def usable_one(self, id: str) -> Token | None:
        """The token of this id, while it may be used; it counts as used now."""
        token, now = self._all.get(id), self._clock()
        if token is None or not token.usable(now):
            return None
        self._used[id] = now
        return token

    async def create(
        self, name: str, scopes: list[str], expires_in: float | None, description: str = ""
    ) -> tuple[Token, str]:
        """A new token and its text, which is kept nowhere. `expires_in`: seconds, None for never.

        Raises BadRequest, and Conflict for a name that another one has.
        """
        if expires_in is not None and not 0 < expires_in <= EXPIRES_MAX:
            raise BadRequest(f"a token cannot expire in {expires_in:g} s\nname up to {EXPIRES_MAX:g} s, or nothing")
        text = f"tp_{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(text.encode()).digest()
        now = self._clock()
        expires_at = None if expires_in is None else now + expires_in
        token = Token(
            id=secrets.token_hex(4),
            name=check_name(name),
            digest=digest,
            scopes=check_scopes(scopes),
            created_at=now,
            expires_at=expires_at,
            description=description,
        )
        async with self._writing:
            if any(other.name == name and not other.revoked for other in self._all.values()):
                raise Conflict(f"there is a token {name!r} already\nchoose another name, or revoke it")
            await self._kept.put_token(token)
            self._put(token)
        return token, text

    async def revoke(self, which: str) -> Token:
        """Ends a token, by its id or its name, for every request from now on. Raises NotFound."""
        found = self._all.get(which) or next((t for t in self._all.values() if t.name == which and not t.revoked), None)
        if found is None:
            raise NotFound(f"no token is {which!r} by id or name\nsee `torpor tokens ls`")
        ended = dataclasses.replace(found, revoked=True)
        self._put(ended)  # before it is written: a full disk must not keep it alive
        await self._kept.put_token(ended)
        return ended

    async def write_used(self) -> None:
        """Writes when each was last used."""
        used, self._used = self._used, {}
        if used:
            for id, at in used.items():
                self._put(dataclasses.replace(self._all[id], last_used_at=at))
            await self._kept.use_tokens(used)

    def _put(self, token: Token) -> None:
        self._all[token.id] = self._by_key[token.digest[:_KEY]] = token


def expiry(value: object) -> float | None:
    """Seconds, as a request names them. Raises BadRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadRequest(f"`expires_in` = {value!r} is no number of seconds\nname up to {EXPIRES_MAX:g}, or null")
    return float(value)
