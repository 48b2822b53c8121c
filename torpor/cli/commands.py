"""The commands of `torpor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console

import torpor
from torpor.cli import platform, show
from torpor.errors import BadRequest, NotFound, TorporError


def remembered(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> bool:
    ctx.meta[show.AS_JSON] = wanted
    return wanted


AS_JSON = click.option("--json", "as_json", is_flag=True, callback=remembered, help="Print JSON.")


class Torpor(click.Group):
    """Errors of the tree become two lines (JSON where JSON was asked for) and an exit code of their class."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TorporError as error:
            raise show.Failed(error, bool(ctx.meta.get(show.AS_JSON))) from error


def run() -> None:
    """Parses and runs."""
    cli()


@click.group(cls=Torpor, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(torpor.__version__, prog_name="torpor")
@click.option("--url", envvar="TORPOR_URL", help="The platform's address.")
@click.pass_context
def cli(ctx: click.Context, url: str | None) -> None:
    """Model endpoints that sleep when nobody calls."""
    ctx.obj = url


@contextmanager
def client(url: str | None) -> Iterator[Any]:
    from torpor.client import Client

    with Client(url) as each:
        yield each


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port; 0 takes a free one.")
@click.option("--data", envvar="TORPOR_DATA", help="Folder of everything durable.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="A torpor.toml.")
@click.option("--log-level", help="debug, info, warning or error.")
@click.option("--detach", "-d", is_flag=True, help="Run in the background; return when it answers.")
@AS_JSON
def up(data: str | None, detach: bool, as_json: bool, **flags: Any) -> None:
    """Start the platform."""
    arguments = ["--data", str(platform.data_folder(data))]
    for name, value in flags.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    if not detach:
        platform.run_here("router", arguments)
    found = platform.up_detached(arguments, platform.data_folder(data))
    show.as_json(found) if as_json else print(f"torpor listens on {found['url']} (pid {found['pid']})")


@cli.command()
@click.option("--data", envvar="TORPOR_DATA", help="Its folder.")
@AS_JSON
def down(data: str | None, as_json: bool) -> None:
    """Stop the platform: calls in flight are drained."""
    found = platform.down(platform.data_folder(data))
    show.as_json(found) if as_json else print(f"stopped {found['url']} (pid {found['pid']})")


@cli.command()
@click.argument("source")
@click.option("--name", required=True, help="The endpoint's name.")
@click.option("--env", "-e", multiple=True, metavar="KEY=VALUE", help="An environment variable of the replicas.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting, such as idle_after=60.")
@click.option("--port", type=int, help="A TCP port of the endpoint's own.")
@AS_JSON
@click.pass_obj
def deploy(
    url: str | None,
    source: str,
    name: str,
    env: tuple[str, ...],
    settings: tuple[str, ...],
    port: int | None,
    as_json: bool,
) -> None:
    """Deploy a service folder, a module:Class, or a built bento's tag."""
    err = Console(stderr=True, highlight=False)

    def tell(phase: str, detail: str) -> None:
        err.print(f"{phase:<22} {detail}" if detail else phase, soft_wrap=True)

    chosen = {key: value(text) for key, text in pairs(settings).items()} | ({} if port is None else {"port": port})
    with client(url) as platform_:
        view = platform_.deploy(source, name, env=pairs(env), settings=chosen, tell=tell)
    if as_json:
        show.as_json(view)
    else:
        print(f"{view['name']} (revision {view['revision']}, {view['bento']}) answers at {view['url']}")


@cli.command()
@AS_JSON
@click.pass_obj
def ls(url: str | None, as_json: bool) -> None:
    """List the endpoints."""
    with client(url) as platform_:
        views = platform_.list()
    if as_json:
        return show.as_json(views)
    columns = ("NAME", "STATE", "BENTO", "CALLS", "COLD", "IN FLIGHT", "MEMORY", "LAST CALL")
    show.table(
        columns,
        (
            (
                v["name"],
                v["state"],
                v["bento"],
                str(v["calls"]),
                str(v["cold_starts"]),
                str(v["in_flight"]),
                show.size(sum(r["memory"] or 0 for r in v["replicas"]) if v["replicas"] else None),
                show.ago(v["last_call_at"]),
            )
            for v in views
        ),
    )
    return None


@cli.command(name="show")
@click.argument("name")
@AS_JSON
@click.pass_obj
def show_(url: str | None, name: str, as_json: bool) -> None:
    """Show an endpoint: its replicas, settings, methods."""
    with client(url) as platform_:
        view = platform_.get(name)
    if as_json:
        return show.as_json(view)
    rows = [(key, str(view[key])) for key in ("name", "state", "url", "bento", "revision", "calls", "cold_starts")]
    rows += [("provider", str(view["learned"]["facts"].get("provider", "")))]
    rows += [("methods", ", ".join(r["name"] for r in view["schema"].get("routes", ())))]
    rows += [
        (f"replica {r['id']}", f"{r['state']}  pid {r['pid']}  {show.size(r['memory'])}") for r in view["replicas"]
    ]
    rows += [(key, str(setting)) for key, setting in view["settings"].items()]
    if view["last_error"]:
        rows.append(("last error", view["last_error"]))
    show.table(("", ""), rows)
    return None


@cli.command()
@click.argument("name")
@click.argument("method")
@click.option("--json", "body", help="The arguments as one JSON object.")
@click.option("--arg", "-a", multiple=True, metavar="KEY=VALUE", help="One argument; VALUE is JSON or else text.")
@click.option("--file", "-f", "files", multiple=True, metavar="KEY=@PATH", help="A file; @PATH: as the body.")
@click.option("--queue-within", type=float, help="Seconds to wait for a replica at most.")
@click.pass_obj
def call(
    url: str | None,
    name: str,
    method: str,
    body: str | None,
    arg: tuple[str, ...],
    files: tuple[str, ...],
    queue_within: float | None,
) -> None:
    """Call an endpoint's method and print its answer."""
    given, arguments = arguments_of(body, arg, files)
    with client(url) as platform_:
        endpoint = platform_.endpoint(name, queue_within=queue_within)
        known = endpoint.methods().get(method)
        if known is not None and known.input.get("root_input") and body is not None and not given:
            given, arguments = (arguments,), {}  # the whole body is one object
        printed(endpoint.call(method, *given, **arguments))


def arguments_of(body: str | None, arg: tuple[str, ...], files: tuple[str, ...]) -> tuple[tuple[Any, ...], Any]:
    """The positional and the named arguments of a call."""
    given: tuple[Any, ...] = ()
    named: Any = {}
    if body is not None:
        try:
            named = json.loads(body)
        except ValueError as error:
            raise BadRequest(f"--json is not JSON: {error}\ngive one object, such as '{{\"texts\": []}}'") from None
    if not isinstance(named, dict):
        given, named = (named,), {}
    named |= {key: value(text) for key, text in pairs(arg).items()}
    several: dict[str, list[Any]] = {}
    for item in files:
        if item.startswith("@"):
            given += (open_path(item),)
        else:
            ((key, path),) = pairs((item,)).items()
            several.setdefault(key, []).append(open_path(path))
    return given, named | {key: paths if len(paths) > 1 else paths[0] for key, paths in several.items()}


def printed(answer: Any) -> None:
    if isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    elif isinstance(answer, str):
        print(answer)
    elif isinstance(answer, Iterator):
        for chunk in answer:
            sys.stdout.buffer.write(chunk if isinstance(chunk, bytes) else chunk.encode())
            sys.stdout.buffer.flush()
        print()
    else:
        print(json.dumps(answer.tolist() if hasattr(answer, "tolist") else answer))


@cli.command()
@click.argument("name")
@AS_JSON
@click.pass_obj
def wake(url: str | None, name: str, as_json: bool) -> None:
    """Start a replica now."""
    with client(url) as platform_:
        view = platform_.wake(name)
    if as_json:
        return show.as_json(view)
    print(f"{name} is {view['state']}: {show.phases(view['replicas'][0]['phases']) if view['replicas'] else ''}")
    return None


@cli.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while calls run.")
@AS_JSON
@click.pass_obj
def sleep(url: str | None, name: str, force: bool, as_json: bool) -> None:
    """Send an endpoint to sleep now."""
    with client(url) as platform_:
        view = platform_.sleep(name, force=force)
    show.as_json(view) if as_json else print(f"{name} is {view['state']}")


@cli.command()
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@click.option("--tail", "-n", default=100, show_default=True, help="Lines of the past.")
@click.pass_obj
def logs(url: str | None, name: str, follow: bool, tail: int) -> None:
    """Print an endpoint's log."""
    with client(url) as platform_:
        for line in platform_.logs(name, tail=tail, follow=follow):
            print(line, flush=follow)


@cli.command()
@click.argument("name")
@AS_JSON
@click.pass_obj
def rm(url: str | None, name: str, as_json: bool) -> None:
    """Remove an endpoint: calls in flight are drained."""
    with client(url) as platform_:
        view = platform_.delete(name)
    show.as_json(view) if as_json else print(f"removed {name}")


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def export(arguments: tuple[str, ...]) -> None:
    """Export a model to ONNX, verified (see `torpor export --help`)."""
    platform.run_here("models", list(arguments))


@cli.command()
@AS_JSON
def models(as_json: bool) -> None:
    """List the exported models of the local model store."""
    try:
        import bentoml
    except ModuleNotFoundError:
        raise NotFound("there is no model store: bentoml is not installed\npip install 'torpor[platform]'") from None
    cards: list[tuple[str, Any]] = [(str(model.tag), model.info.metadata) for model in bentoml.models.list()]
    found: list[dict[str, Any]] = [
        {"tag": tag, **{key: card.get(key, "") for key in ("task", "precisions", "source")}}
        for tag, card in cards
        if "precisions" in card
    ]
    if as_json:
        return show.as_json(found)
    rows = ((m["tag"], str(m["task"]), ", ".join(m["precisions"]), str(m["source"])) for m in found)
    show.table(("MODEL", "TASK", "PRECISIONS", "SOURCE"), rows)
    return None


@cli.command()
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="A torpor.toml.")
@AS_JSON
def config(config: str | None, as_json: bool) -> None:
    """Print the configuration that `torpor up` would run with."""
    arguments = ["--print-config"] + (["--config", config] if config else []) + (["--json"] if as_json else [])
    platform.run_here("router", arguments)


def pairs(items: tuple[str, ...]) -> dict[str, str]:
    out = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{item!r} is not KEY=VALUE")
        out[key] = text
    return out


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def open_path(text: str) -> Any:
    from pathlib import Path

    return Path(text.removeprefix("@"))
