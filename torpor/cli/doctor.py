"""`torpor doctor`: what on this machine keeps the platform from running well, and what to do about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from torpor.cli import show
from torpor.cli.group import AS_JSON

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--data", envvar="TORPOR_DATA", type=click.Path(path_type=Path), help="The platform's data folder.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="A torpor.toml.")
@AS_JSON
@click.pass_context
def doctor(ctx: click.Context, data: Path | None, config: str | None, as_json: bool) -> None:
    """Check this machine, and say what to mend. Exit code 1 where something does not work."""
    from torpor.cli.checks import FAIL, OK, examined

    found = []
    for check in examined(data.expanduser().absolute() if data else None, config):
        found.append(check)
        if not as_json:
            state = click.style(f"{check.state:<4}", fg=COLOURS[check.state])
            click.echo(f"{state}  {check.name:<14} {check.says}")
            if check.state != OK:
                click.echo(f"{'':<21} {check.remedy}")
    if as_json:
        show.as_json([dataclasses.asdict(check) for check in found])
    ctx.exit(int(any(check.state == FAIL for check in found)))
