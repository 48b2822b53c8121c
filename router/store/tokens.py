"""Tokens as rows of their table."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from router.core.tokens import Token
from router.store.tables import tokens


def all_tokens(connection: Connection) -> list[Token]:
    """Oldest first, those that are revoked or over too."""
    return [
        Token(
            id=row.id,
            name=row.name,
            digest=bytes.fromhex(row.hash),
            scopes=tuple(row.scopes),
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            revoked=row.revoked,
            description=row.description or "",
        )
        for row in connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.id))
    ]


def put_token(connection: Connection, token: Token) -> None:
    """A new one, or the present state of one that is there."""
    changing = {"last_used_at": token.last_used_at, "revoked": token.revoked}
    if connection.execute(update(tokens).where(tokens.c.id == token.id).values(**changing)).rowcount == 0:
        fixed = {"name": token.name, "hash": token.digest.hex(), "scopes": list(token.scopes)}
        fixed["description"] = token.description
        instants = {"created_at": token.created_at, "expires_at": token.expires_at}
        connection.execute(insert(tokens).values(id=token.id, **fixed, **instants, **changing))


def use_tokens(connection: Connection, used: dict[str, float]) -> None:
    """Sets when each was last used."""
    for id, at in used.items():
        connection.execute(update(tokens).where(tokens.c.id == id).values(last_used_at=at))
