"""The commands about tokens: create, ls, revoke. On this machine they need none, whether the platform runs or not."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import click

from torpor.cli import platform, show
from torpor.cli.group import AS_JSON, client
from torpor.errors import StartFailed
from torpor.local import data_folder, read_address
from torpor.wire import MadeToken, TokenView

COLUMNS = ("ID", "NAME", "SCOPES", "STATE", "CREATED", "EXPIRES", "LAST USED")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DATA = click.option("--data", envvar="TORPOR_DATA", help="The platform's folder, where no --url names it.")


class Tokens(Protocol):
    """Where tokens are asked for: a client of the platform, or the folder of one that does not run."""

    def tokens(self) -> Sequence[TokenView]: ...

    def create_token(self, name: str, scopes: Sequence[str], expires_in: float | None) -> MadeToken: ...

    def revoke_token(self, token: str) -> TokenView: ...


class Folder:
    """The data folder of a platform that does not run. Raises what the platform would."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def tokens(self) -> Sequence[TokenView]:
        return cast(Sequence[TokenView], self._asked("ls")["tokens"])

    def create_token(self, name: str, scopes: Sequence[str], expires_in: float | None) -> MadeToken:
        return cast(MadeToken, self._asked("create", name=name, scopes=[*scopes], expires_in=expires_in))

    def revoke_token(self, token: str) -> TokenView:
        return cast(TokenView, self._asked("revoke", token=token))

    def _asked(self, action: str, **what: Any) -> Any:
        line = platform.command("router.tokens", [str(self._data), action, json.dumps(what)])
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        last = " | ".join(done.stderr.strip().splitlines()[-platform.SHOWN :])
        raise platform.said(done.stdout) or StartFailed(f"the tokens of {self._data} cannot be read: {last}\nmend that")


@contextmanager
def asked(url: str | None, data: str | None) -> Iterator[Tokens]:
    """1 the platform at `url`; 2 the one that runs on the folder, by its socket; 3 the folder itself."""
    if url is not None:  # 1
        with client(url) as remote:
            yield remote
        return
    folder = data_folder(data)
    found = read_address(folder)
    if found is not None and platform.running(found) and platform.answers(found):  # 2
        with platform.local(found) as here:
            yield here
    else:  # 3
        yield Folder(folder)


def seconds(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """`90d`, `12h`, `30m`, `10s`."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no time: write 90d, 12h, 30m or 10s")
    return float(match[1]) * UNITS[match[2]]


@click.group()
def tokens() -> None:
    """Who may call the platform, from where it asks for tokens."""


@tokens.command()
@click.argument("name")
@click.option("--scope", multiple=True, required=True, help="call, call:<endpoint>, api or admin; may be repeated.")
@click.option("--expires", callback=seconds, metavar="TIME", help="When it ends, such as 90d or 12h; else never.")
@DATA
@AS_JSON
@click.pass_obj
def create(
    url: str | None, name: str, scope: tuple[str, ...], expires: float | None, data: str | None, as_json: bool
) -> None:
    """Make a token and print its text, which is shown this once."""
    with asked(url, data) as there:
        made = there.create_token(name, scope, expires)
    show.as_json(made) if as_json else print(made["token"])


@tokens.command()
@DATA
@AS_JSON
@click.pass_obj
def ls(url: str | None, data: str | None, as_json: bool) -> None:
    """List the tokens, without their texts."""
    with asked(url, data) as there:
        found = there.tokens()
    if as_json:
        return show.as_json(found)
    rows = []
    for each in found:
        instants = [show.ago(each["created_at"]), until(each["expires_at"]), show.ago(each["last_used_at"])]
        rows.append([each["id"], each["name"], ", ".join(each["scopes"]), each["state"], *instants])
    show.table(COLUMNS, rows)
    return None


@tokens.command()
@click.argument("token", metavar="ID|NAME")
@DATA
@AS_JSON
@click.pass_obj
def revoke(url: str | None, token: str, data: str | None, as_json: bool) -> None:
    """End a token now, by its id or name."""
    with asked(url, data) as there:
        ended = there.revoke_token(token)
    show.as_json(ended) if as_json else print(f"revoked {ended['name']} ({ended['id']})")


def until(instant: float | None) -> str:
    if instant is None:
        return "never"
    left = instant - time.time()
    return show.ago(instant) if left < 0 else f"in {show.ago(time.time() - left).removesuffix(' ago')}"
