"""`torpor call`: a call's arguments out of options, its answer on stdout and nothing beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from torpor.cli.completion import names
from torpor.cli.group import client, pairs, value
from torpor.errors import BadRequest


@click.command()
@click.argument("name", shell_complete=names)
@click.argument("method")
@click.option("--json", "body", help="The arguments as one JSON object, or the one positional argument.")
@click.option("--arg", "-a", multiple=True, metavar="KEY=VALUE", help="One argument; VALUE is JSON or else text.")
@click.option("--file", "-f", "files", multiple=True, metavar="KEY=@PATH", help="A file; @PATH: as the body.")
@click.option("--queue-within", type=float, help="Seconds to wait for a replica at most.")
@click.option("--answer-within", type=float, help="Seconds until the answer at most.  [default: 600]")
@click.pass_obj
def call(
    url: str | None,
    /,
    name: str,
    method: str,
    body: str | None,
    arg: tuple[str, ...],
    files: tuple[str, ...],
    **deadlines: float | None,
) -> None:
    """Call an endpoint's method and print its answer: JSON, text or bytes, a stream as it comes."""
    texts = pairs(arg)
    given, named = arguments_of(body, files)
    with client(url) as platform:
        endpoint = platform.endpoint(name, **deadlines)
        known = endpoint.methods().get(method)
        takes = known.input.get("properties", {}) if known is not None else {}
        named |= {key: value(text, takes.get(key, {}).get("type")) for key, text in texts.items()}
        printed(endpoint.call(method, *given, **named))


def arguments_of(body: str | None, files: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the named arguments of a call, but for those of --arg."""
    given: list[Any] = []
    named: dict[str, Any] = {}
    if body is not None:
        try:
            parsed = json.loads(body)
        except ValueError as error:
            raise BadRequest(f"--json is not JSON: {error}\ngive one object, such as '{{\"texts\": []}}'") from None
        if isinstance(parsed, dict):
            named = parsed
        else:
            given.append(parsed)
    several: dict[str, list[Path]] = {}
    for item in files:
        if item.startswith("@"):
            given.append(Path(item[1:]))
        else:
            ((key, path),) = pairs((item,)).items()
            several.setdefault(key, []).append(Path(path.removeprefix("@")))
    return given, named | {key: paths if len(paths) > 1 else paths[0] for key, paths in several.items()}


def printed(answer: Any) -> None:
    """Bytes and text as they are; a terminal gets the newline that text lacks."""
    chunks = answer if isinstance(answer, Iterator) else iter((answer,))
    last: Any = b"\n"
    for chunk in chunks:
        if not isinstance(chunk, (str, bytes)):
            chunk = json.dumps(chunk.tolist() if hasattr(chunk, "tolist") else chunk) + "\n"
        last = chunk or last
        sys.stdout.buffer.write(chunk.encode() if isinstance(chunk, str) else chunk)
        sys.stdout.buffer.flush()
    if isinstance(last, str) and not last.endswith("\n") and sys.stdout.isatty():
        print()
