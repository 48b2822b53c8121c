"""The commands about secrets: set, ls, rm. Their values go in, and never come out."""

from __future__ import annotations

import re
import sys
from typing import IO

import click

from torpor.cli import show
from torpor.cli.group import AS_JSON, client, pairs

COLUMNS = ("NAME", "KEYS", "TYPE", "CHANGED", "USED BY")
STDIN = "-"
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*(.*)")


@click.group()
def secrets() -> None:
    """Variables that endpoints need and nobody should read: `torpor deploy --secret NAME`."""


@secrets.command(name="set")
@click.argument("name")
@click.argument("variables", nargs=-1, metavar="KEY=VALUE...")
@click.option("--from-file", type=click.File(), help="Lines of KEY=VALUE; what is named here too comes from here.")
@click.option("--description", default="", help="What it is for.")
@AS_JSON
@click.pass_obj
def set_(
    url: str | None, name: str, variables: tuple[str, ...], from_file: IO[str] | None, description: str, as_json: bool
) -> None:
    """Make a secret, or replace all that one holds.

    The value of `KEY=-` is read from standard input: a value in the command line is in the list of processes.
    """
    env = {**(lines(from_file) if from_file is not None else {}), **given(variables)}
    if not env:
        raise click.UsageError("a secret without a variable: name KEY=VALUE, or --from-file")
    with client(url) as platform:
        made = platform.set_secret(name, env, description)
    show.as_json(made) if as_json else print(f"{made['name']}: {', '.join(made['keys'])}")


@secrets.command()
@AS_JSON
@click.pass_obj
def ls(url: str | None, as_json: bool) -> None:
    """List the secrets, without their values."""
    with client(url) as platform:
        found = platform.secrets()
    if as_json:
        return show.as_json(found)
    rows = []
    for each in found:
        kind = each["type"] if each["stage"] == "runtime" else f"{each['type']}, {each['stage']}"
        rows.append(
            [each["name"], ", ".join(each["keys"]), kind, show.ago(each["updated_at"]), ", ".join(each["users"])]
        )
    show.table(COLUMNS, rows)
    return None


@secrets.command()
@click.argument("name")
@AS_JSON
@click.pass_obj
def rm(url: str | None, name: str, as_json: bool) -> None:
    """Delete a secret that no live revision uses."""
    with client(url) as platform:
        gone = platform.remove_secret(name)
    show.as_json(gone) if as_json else print(f"removed {gone['name']}")


def given(variables: tuple[str, ...]) -> dict[str, str]:
    """Those of the command line, with the one that standard input has."""
    if odd := [number for number, text in enumerate(variables, 1) if not text.partition("=")[1]]:
        raise click.UsageError(f"variable {odd[0]} is not KEY=VALUE")  # what it says may be a secret
    env = pairs(variables)
    piped = [key for key, value in env.items() if value == STDIN]
    if len(piped) > 1:
        raise click.UsageError(f"{' and '.join(piped)} cannot all be read from standard input: use --from-file")
    if piped:
        env[piped[0]] = sys.stdin.read().removesuffix("\n")
    return env


def lines(file: IO[str]) -> dict[str, str]:
    """KEY=VALUE, a line each; empty ones and comments are passed over, quotes around a value are taken off."""
    env = {}
    for number, text in enumerate(file, 1):
        text = text.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:  # what it says may be a secret
            raise click.UsageError(f"line {number} of {file.name} is not KEY=VALUE")
        key, value = match[1], match[2].strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        env[key] = value[1:-1] if quoted else value
    return env
