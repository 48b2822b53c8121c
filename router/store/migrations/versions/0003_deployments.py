"""Deployments of the BentoCloud API: variants, what was pushed, secrets."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def added() -> dict[str, tuple[sa.Column[Any], ...]]:
    """New ones each time: a column belongs to one table object only."""
    return {
        "revisions": (sa.Column("spec", sa.JSON), sa.Column("creator", sa.String(63))),
        "endpoints": (
            sa.Column("uid", sa.String(32)),
            sa.Column("updated_at", sa.Float),
            sa.Column("port", sa.Integer),
            sa.Column("terminated", sa.Boolean, nullable=False, server_default="0"),
            sa.Column("asked", sa.JSON),
            sa.Column("fault", sa.Text),
            sa.Column("day", sa.Integer),
            sa.Column("used", sa.Integer),
        ),
        "tokens": (sa.Column("description", sa.Text),),
    }


def upgrade() -> None:
    for table, columns in added().items():
        for column in columns:
            op.add_column(table, column)
    make_variants()
    make_pushed()
    make_secrets()


def make_variants() -> None:
    op.create_table(
        "variants",
        sa.Column("endpoint", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("rule", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def make_pushed() -> None:
    op.create_table(
        "repositories",
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("version", sa.String(255), primary_key=True),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("manifest", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("build_at", sa.String(64)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("size", sa.Integer),
        sa.Column("upload", sa.JSON),
    )


def make_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("keys", sa.JSON, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("creator", sa.String(63), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    for table in ("secrets", "artifacts", "repositories", "variants"):
        op.drop_table(table)
    for table, columns in added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
