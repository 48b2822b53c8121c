"""The commands about endpoints: deploy, ls, show, wake, sleep, logs, rm."""

from __future__ import annotations

from typing import Any

import click

from torpor.cli import show
from torpor.cli.completion import names
from torpor.cli.group import AS_JSON, client, deploy_options

COLUMNS = ("NAME", "STATE", "BENTO", "CALLS", "COLD", "IN FLIGHT", "MEMORY", "LAST CALL")
SHOWN = ("name", "state", "url", "own_url", "bento", "revision", "calls", "cold_starts", "in_flight", "parked")


@click.command()
@click.argument("source")
@click.option("--name", required=True, help="The endpoint's name.")
@click.option("--env", "-e", multiple=True, metavar="KEY=VALUE", help="An environment variable of the replicas.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting, such as idle_after=60.")
@click.option("--port", type=int, help="A TCP port of the endpoint's own.")
@click.option("--secret", "-s", "secrets", multiple=True, metavar="NAME", help="A secret of the platform.")
@click.option("--access/--open", default=None, help="Callers need a token, or none.  [default: as the platform asks]")
@click.option("--to", metavar="ENVIRONMENT", help="Beside the live revision, at an address of its own: staging.")
@AS_JSON
@click.pass_obj
def deploy(
    url: str | None, /, source: str, name: str, port: int | None, to: str | None, as_json: bool, **given: Any
) -> None:
    """Deploy a service folder, a module:Class, or a built bento's tag; returns when one start has succeeded."""
    if to is not None and port is not None:
        raise click.UsageError(f"--port is of the endpoint itself: {name}~{to} has its own address without one")
    options = deploy_options(**given)
    if port is not None:
        options["settings"] = {**options["settings"], "port": port}
    if to is not None:
        options["variant"] = to
    with client(url) as platform, show.Progress() as progress:
        options["tell"] = progress.tell
        view = platform.deploy(source, name, **options)
    if as_json:
        return show.as_json(view)
    print(show.live(view) if to is None else show.beside(view, to))
    return None


@click.command()
@AS_JSON
@click.pass_obj
def ls(url: str | None, as_json: bool) -> None:
    """List the endpoints."""
    with client(url) as platform:
        views = platform.list()
    if as_json:
        return show.as_json(views)
    rows = []
    for view in views:
        memory = show.size(sum(r["memory"] or 0 for r in view["replicas"]) if view["replicas"] else None)
        counts = [str(view[key]) for key in ("calls", "cold_starts", "in_flight")]
        rows.append([view["name"], view["state"], view["bento"], *counts, memory, show.ago(view["last_call_at"])])
    show.table(COLUMNS, rows)
    return None


@click.command(name="show")
@click.argument("name", shell_complete=names)
@AS_JSON
@click.pass_obj
def show_(url: str | None, name: str, as_json: bool) -> None:
    """Show an endpoint: its replicas, settings, methods."""
    with client(url) as platform:
        view = platform.get(name)
    if as_json:
        return show.as_json(view)
    rows = [(key, str(value)) for key, value in view.items() if key in SHOWN and value is not None]
    rows[2:2] = show.rung(view)
    rows.append(("provider", str(view["learned"]["facts"].get("provider", ""))))
    rows.append(("methods", ", ".join(r["name"] for r in view["schema"].get("routes", ()))))
    rows += [(f"variant {v['name']}", show.beside(view, v["name"])) for v in view["variants"]]
    rows += [
        (f"replica {r['id']}", f"{r['state']}  pid {r['pid']}  {show.taken(r)}  {show.phases(r['phases'])}")
        for r in view["replicas"]
    ]
    rows += [(key, str(setting)) for key, setting in view["settings"].items()]
    if view["last_error"]:
        rows.append(("last error", view["last_error"]))
    show.table(("", ""), rows)
    return None


@click.command()
@click.argument("name", shell_complete=names)
@AS_JSON
@click.pass_obj
def wake(url: str | None, name: str, as_json: bool) -> None:
    """Start a replica now."""
    with client(url) as platform:
        view = platform.wake(name)
    if as_json:
        return show.as_json(view)
    print(f"{name} is {view['state']}: {show.phases(view['replicas'][0]['phases']) if view['replicas'] else ''}")
    return None


@click.command()
@click.argument("name", shell_complete=names)
@click.option("--force", is_flag=True, help="Also while calls run.")
@AS_JSON
@click.pass_obj
def sleep(url: str | None, name: str, force: bool, as_json: bool) -> None:
    """Send an endpoint to sleep now."""
    with client(url) as platform:
        view = platform.sleep(name, force=force)
    show.as_json(view) if as_json else print(f"{name} is {view['state']}")


@click.command()
@click.argument("name", shell_complete=names)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@click.option("--tail", "-n", default=100, show_default=True, help="Lines of the past.")
@AS_JSON
@click.pass_obj
def logs(url: str | None, name: str, follow: bool, tail: int, as_json: bool) -> None:
    """Print an endpoint's log, each line after its replica's id; with --json one object a line."""
    with client(url) as platform:
        for line in platform.logs(name, tail=tail, follow=follow):
            replica, _, text = line.partition(" ")
            show.as_json({"replica": replica, "line": text}) if as_json else print(line, flush=follow)


@click.command()
@click.argument("name", shell_complete=names)
@AS_JSON
@click.pass_obj
def rm(url: str | None, name: str, as_json: bool) -> None:
    """Remove an endpoint: calls in flight are drained."""
    with client(url) as platform:
        view = platform.delete(name)
    show.as_json(view) if as_json else print(f"removed {name}")
