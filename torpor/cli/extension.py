"""`bentoml torpor ...`: torpor's commands inside of bentoml's command line, loaded when one is called."""

from __future__ import annotations

from typing import Any

import click


class Torpor(click.Group):
    """Stands for `torpor` until it is called: what it imports is paid by nobody else's `bentoml`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        from torpor.cli.commands import cli

        return cli.make_context(info_name, args, parent, **extra)


@click.group(cls=Torpor)
def torpor() -> None:
    """Model endpoints on a platform of one's own."""
