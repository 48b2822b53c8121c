"""`torpor gc`: what no revision uses any more, told first and then freed."""

from __future__ import annotations

import click

from torpor.cli import show
from torpor.cli.group import AS_JSON, client


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Free it without asking.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be freed.")
@AS_JSON
@click.pass_obj
def gc(url: str | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Free the pushed bentos and models, and environments, that no revision uses; nothing younger than an hour."""
    with client(url) as platform:
        found = platform.gc()
        if not as_json:
            show.table(("KIND", "NAME", "SIZE"), [(i["kind"], i["name"], show.size(i["size"])) for i in found["items"]])
        if found["items"] and not dry_run:
            if not yes:
                click.confirm(f"free {show.size(found['size'])}?", abort=True, err=True)
            found = platform.gc(dry_run=False, only=[each["title"] for each in found["items"]])
    if as_json:
        return show.as_json(found)
    print(f"{'would free' if found['dry_run'] and found['items'] else 'freed'} {show.size(found['size'])}")
    return None
