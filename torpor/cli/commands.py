"""`torpor` itself, and the commands about the platform and its models."""

from __future__ import annotations

import sys
from typing import Any

import click

import torpor
from torpor.cli import (
    calls,
    chaos,
    completion,
    doctor,
    endpoints,
    exits,
    gc,
    platform,
    revisions,
    secrets,
    show,
    tokens,
    top,
)
from torpor.cli.group import AS_JSON, CACERT, Torpor
from torpor.errors import NotFound

CONFIG = click.option("--config", type=click.Path(exists=True, dir_okay=False), help="A torpor.toml.")


@click.group(cls=Torpor, context_settings={"help_option_names": ["-h", "--help"]}, epilog=exits.USAGE)
@click.version_option(torpor.__version__, prog_name="torpor")
@click.option("--url", envvar="TORPOR_URL", help="The platform's address; else the one that runs on this machine.")
@click.option("--cacert", envvar=CACERT, metavar="FILE", help="A PEM file of the authorities to trust over https.")
@click.pass_context
def cli(ctx: click.Context, url: str | None, cacert: str | None) -> None:
    """Model endpoints that sleep when nobody calls."""
    ctx.obj = url
    ctx.meta[CACERT] = cacert


for command in (endpoints.deploy, endpoints.ls, endpoints.show_, calls.call, endpoints.wake, endpoints.sleep):
    cli.add_command(command)
for command in (revisions.history, revisions.events, revisions.rollback, revisions.canary, revisions.promote):
    cli.add_command(command)
for command in (revisions.terminate, revisions.start):
    cli.add_command(command)
for command in (chaos.chaos, completion.completion, gc.gc, secrets.secrets):
    cli.add_command(command)
for command in (endpoints.logs, endpoints.rm, tokens.tokens, top.top, doctor.doctor):
    cli.add_command(command)


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port; 0 takes a free one.")
@click.option("--data", envvar="TORPOR_DATA", help="Folder of everything durable.")
@CONFIG
@click.option("--launcher", type=click.Choice(["process", "container"]), help="How endpoints run by default.")
@click.option("--log-level", help="debug, info, warning or error.")
@click.option("--tls", type=click.Choice(["self-signed"]), help="HTTPS with a certificate made here, for trying.")
@click.option("--detach", "-d", is_flag=True, help="Run in the background; return when it answers.")
@AS_JSON
def up(detach: bool, as_json: bool, **flags: Any) -> None:
    """Start the platform."""
    arguments = ["--json"] if as_json else []
    for name, value in flags.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    if not detach:
        platform.run_here("router", arguments)
    shown = as_json or sys.stdout.isatty()  # the text of a token is for nobody's log
    found = platform.up_detached(arguments, platform.configured_data(flags["data"], flags["config"]), shown)
    show.as_json(found) if as_json else show.started(found)


@cli.command()
@click.option("--data", envvar="TORPOR_DATA", help="Its folder.")
@AS_JSON
def down(data: str | None, as_json: bool) -> None:
    """Stop the platform: calls in flight are drained."""
    found = platform.down(platform.data_folder(data))
    show.as_json(found) if as_json else print(f"stopped {found['url']} (pid {found['pid']})")


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
@CONFIG
@AS_JSON
def config(config: str | None, as_json: bool) -> None:
    """Print the configuration that `torpor up` would run with."""
    arguments = ["--print-config"] + (["--config", config] if config else []) + (["--json"] if as_json else [])
    platform.run_here("router", arguments)
