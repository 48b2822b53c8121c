"""Which revisions an endpoint can go back to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

KEPT = 100


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("past", sa.JSON))
    connection = op.get_bind()
    endpoints = sa.table("endpoints", sa.column("name"), sa.column("revision"), sa.column("past", sa.JSON))
    revisions = sa.table("revisions", sa.column("endpoint"), sa.column("number"))
    for name, live in connection.execute(sa.select(endpoints.c.name, endpoints.c.revision)).all():
        earlier = (revisions.c.endpoint == name) & (revisions.c.number < live)
        query = sa.select(revisions.c.number).where(earlier).order_by(revisions.c.number)
        past = list(connection.execute(query).scalars())[-KEPT:]
        connection.execute(sa.update(endpoints).where(endpoints.c.name == name).values(past=past))


def downgrade() -> None:
    with op.batch_alter_table("endpoints") as batch:
        batch.drop_column("past")
