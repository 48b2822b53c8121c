"""What all commands share: errors as exit codes, `--json`, the client, KEY=VALUE options."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from torpor.cli import INTERRUPTED, show
from torpor.cli.exits import exit_code
from torpor.errors import TorporError

if TYPE_CHECKING:
    from torpor.client import Client
    from torpor.client.flow import Deploy

CACERT = "TORPOR_CACERT"  # the variable, and where a command's context keeps what it or --cacert says
WANTS_JSON = "torpor.as_json"  # where a command's context keeps whether JSON was asked for


class Torpor(click.Group):
    """Errors of the tree become two lines (JSON where JSON was asked for) and an exit code of their class."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TorporError as error:
            raise Failed(error, bool(ctx.meta.get(WANTS_JSON))) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


class Failed(click.ClickException):
    """An error of the tree, as the command line ends with it."""

    def __init__(self, error: TorporError, as_json: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.exit_code = exit_code(error)  # type: ignore[misc]  # per instance: it depends on the error's class
        self._as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        if self._as_json:
            return show.as_json(self.error.body())
        print(self.error.message, file=sys.stderr)
        for line in self.error.detail.get("log", ()):
            print(f"  | {line}", file=sys.stderr)
        return None


def _remembered(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> bool:
    ctx.meta[WANTS_JSON] = wanted
    return wanted


AS_JSON = click.option("--json", "as_json", is_flag=True, callback=_remembered, help="Print JSON.")


@contextmanager
def client(url: str | None, **options: Any) -> Iterator[Client]:
    from torpor.client import Client

    with Client(url, verify=click.get_current_context().meta.get(CACERT), **options) as each:
        yield each


def pairs(items: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE options by key."""
    out = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{item!r} is not KEY=VALUE")
        out[key] = text
    return out


def value(text: str, wanted: str | None = None) -> Any:
    """JSON, or else the text itself; the text, too, where the schema `wanted` a string: 123 may be a name."""
    if wanted == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def deploy_options(
    env: tuple[str, ...], settings: tuple[str, ...], secrets: tuple[str, ...], access: bool | None = None
) -> Deploy:
    """What a deploy's flags say."""
    chosen = {key: value(text) for key, text in pairs(settings).items()}
    return {"env": pairs(env), "settings": chosen, "secrets": list(secrets), "access": access}
