"""Secrets as rows of their table: their values only sealed."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from router.core.secrets import Key, Secret
from router.store.store import Store
from router.store.tables import secrets


def all_secrets(connection: Connection) -> list[tuple[Secret, bytes]]:
    """By name, each with its sealed values."""
    found = []
    for row in connection.execute(select(secrets).order_by(secrets.c.name)):
        fields = row._asdict()
        sealed, keys = fields.pop("sealed"), fields.pop("keys")
        found.append((Secret(**fields, keys=tuple(Key(name, sub_path) for name, sub_path in keys)), sealed))
    return found


def put_secret(connection: Connection, secret: Secret, sealed: bytes) -> None:
    """A new one, or the present state of one that is there."""
    changing = {
        "description": secret.description,
        "type": secret.type,
        "path": secret.path,
        "stage": secret.stage,
        "keys": [[key.name, key.sub_path] for key in secret.keys],
        "sealed": sealed,
        "updated_at": secret.updated_at,
    }
    if connection.execute(update(secrets).where(secrets.c.name == secret.name).values(**changing)).rowcount == 0:
        fixed = {"name": secret.name, "uid": secret.uid, "creator": secret.creator, "created_at": secret.created_at}
        connection.execute(insert(secrets).values(**fixed, **changing))


def delete_secret(connection: Connection, name: str) -> None:
    connection.execute(delete(secrets).where(secrets.c.name == name))


class SecretRows:
    """Writes return when they are on the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[tuple[Secret, bytes]]:
        """Blocks."""
        return self._store.read(all_secrets)

    async def put(self, secret: Secret, sealed: bytes) -> None:
        await self._store.write(lambda connection: put_secret(connection, secret, sealed))

    async def delete(self, name: str) -> None:
        await self._store.write(lambda connection: delete_secret(connection, name))
