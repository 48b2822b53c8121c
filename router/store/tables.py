"""The tables. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

# A revision never changes; the live one is named by its endpoint, others by its variants.
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
    Column("spec", JSON),  # what its deploy said beside: secrets, access, canary, and keys that torpor does not know
    Column("creator", String(63)),  # the name of the token that deployed it
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("revision", Integer, nullable=False),  # 0: none was ever live
    Column("past", JSON),  # revisions that were live before, the nearest last
    Column("uid", String(32)),
    Column("updated_at", Float),
    Column("port", Integer),  # of its own, also while it is terminated
    Column("terminated", Boolean, nullable=False, server_default="0"),  # kept, and not on the air
    Column("asked", JSON),  # the deploy that was asked for last, when it failed
    Column("fault", Text),  # why it failed
    Column("created_at", Float, nullable=False),
    Column("calls", Integer, nullable=False, default=0),
    Column("cold_starts", Integer, nullable=False, default=0),
    Column("last_call_at", Float),
    Column("day", Integer),  # since the epoch, on which `used` calls counted for its quota
    Column("used", Integer),
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
    Column("description", Text),
)

# Revisions of an endpoint beside the live one: of a canary, of a named environment, in the shadow.
variants = Table(
    "variants",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("rule", JSON, nullable=False),  # how calls come to it: `router/core/split.py`
    Column("created_at", Float, nullable=False),
)

# What was pushed: bentos and models. The bytes lie in the depot under their digest.
repositories = Table(
    "repositories",
    metadata,
    Column("kind", String(8), primary_key=True),  # bento, model
    Column("name", String(255), primary_key=True),
    Column("uid", String(32), nullable=False),
    Column("description", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("version", String(255), primary_key=True),
    Column("uid", String(32), nullable=False),
    Column("description", Text, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("build_at", String(64)),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("status", String(16), nullable=False),  # pending, uploading, success, failed
    Column("reason", Text, nullable=False),
    Column("digest", String(64)),  # SHA-256 of the tar in hex, once it is whole
    Column("size", Integer),  # bytes of the tar
    Column("upload", JSON),  # of an upload in parts: its id, and what has come
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("uid", String(32), nullable=False),
    Column("description", Text, nullable=False),
    Column("type", String(16), nullable=False),  # env, file, mountfile
    Column("path", Text, nullable=False),
    Column("stage", String(16), nullable=False),  # build, runtime, all
    Column("keys", JSON, nullable=False),  # of its items: name, and place of a file or null
    Column("sealed", LargeBinary, nullable=False),  # their values, encrypted with the platform's key
    Column("creator", String(63), nullable=False),  # the name of the token that made it
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)
