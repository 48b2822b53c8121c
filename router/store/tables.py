"""The tables. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

metadata = MetaData()

# A revision never changes; the live one is named by its endpoint.
revisions = Table(
    "revisions",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("bento", String(255), nullable=False),
    Column("env", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("created_at", Float, nullable=False),  # seconds since the epoch
    Column("learned", JSON, nullable=False),  # of its first start
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("calls", Integer, nullable=False, default=0),
    Column("cold_starts", Integer, nullable=False, default=0),
    Column("last_call_at", Float),
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("endpoint", String(63), ForeignKey("endpoints.name", ondelete="CASCADE"), index=True, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(63), nullable=False),
    # SHA-256 in hex, and no slow hash: a token is 32 random bytes, which nobody guesses however quick the hash is.
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    Column("revoked", Boolean, nullable=False),
)
