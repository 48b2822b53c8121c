"""Migrations of an older database, by Alembic. Imported only where there is one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection

from torpor.errors import InvalidConfig


def migrate(connection: Connection, url: URL) -> None:
    """Raises InvalidConfig for a database of a newer version."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        newest = ScriptDirectory.from_config(config).get_current_head()
        raise InvalidConfig(
            f"the database {url} was written by a newer torpor ({error}; this one knows {newest})\n"
            "install that version, or use another data folder"
        ) from error
