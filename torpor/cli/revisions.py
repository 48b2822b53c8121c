"""The commands about revisions: history, events, rollback, canary, promote, terminate, start."""

from __future__ import annotations

import time
from typing import Any

import click

from torpor.cli import show
from torpor.cli.completion import names
from torpor.cli.group import AS_JSON, client, deploy_options
from torpor.errors import BadRequest
from torpor.wire import RuleView

COLUMNS = ("REVISION", "BENTO", "MADE", "BY", "STATE", "SET")
CANARY = "canary"  # the name of the variant
WEIGHT = 10  # percent of the calls, where none is named


@click.command()
@click.argument("name", shell_complete=names)
@AS_JSON
@click.pass_obj
def history(url: str | None, name: str, as_json: bool) -> None:
    """List an endpoint's revisions, newest first."""
    with client(url) as platform:
        found = platform.history(name)
    if as_json:
        return show.as_json(found)
    rows = []
    for each in found:
        chosen = [*each["env"], *each["secrets"], *(f"{key}={value}" for key, value in each["settings"].items())]
        if each["access"] is not None:
            chosen.append("access" if each["access"] else "open")
        state = ", ".join(each["state"]) or "-"
        row = (str(each["number"]), each["bento"], show.ago(each["created_at"]), each["creator"] or "-", state)
        rows.append((*row, " ".join(chosen)))
    show.table(COLUMNS, rows)
    return None


@click.command()
@click.argument("name", shell_complete=names)
@click.option("--tail", "-n", default=100, show_default=True, help="Events, the last ones.")
@AS_JSON
@click.pass_obj
def events(url: str | None, name: str, tail: int, as_json: bool) -> None:
    """Print what happened to an endpoint, the latest last."""
    with client(url) as platform:
        found = platform.events(name, limit=tail)
    if as_json:
        return show.as_json(found)
    for each in found:
        first, *rest = each["text"].splitlines() or [""]
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(each["at"]))
        print(f"{at} {each['kind']:<16} {first}")
        for line in rest:
            print(f"  | {line}")
    return None


@click.command()
@click.argument("name", shell_complete=names)
@click.argument("revision", type=int, required=False)
@AS_JSON
@click.pass_obj
def rollback(url: str | None, name: str, revision: int | None, as_json: bool) -> None:
    """Make an earlier REVISION live again; without one, that which was live before."""
    with client(url) as platform, show.Progress() as progress:
        view = platform.rollback(name, revision, tell=progress.tell)
    show.as_json(view) if as_json else print(show.live(view))


@click.command()
@click.argument("name", shell_complete=names)
@click.option("--from", "variant", default=CANARY, show_default=True, help="canary, or an environment such as staging.")
@AS_JSON
@click.pass_obj
def promote(url: str | None, name: str, variant: str, as_json: bool) -> None:
    """Make the revision of a canary or a named environment live."""
    with client(url) as platform, show.Progress() as progress:
        view = platform.promote(name, variant, tell=progress.tell)
    show.as_json(view) if as_json else print(show.live(view))


@click.command()
@click.argument("name", shell_complete=names)
@AS_JSON
@click.pass_obj
def terminate(url: str | None, name: str, as_json: bool) -> None:
    """Take an endpoint off the air and keep it: calls in flight are drained."""
    with client(url) as platform:
        view = platform.terminate(name)
    show.as_json(view) if as_json else print(f"{name} is terminated; to start it again: torpor start {name}")


@click.command()
@click.argument("name", shell_complete=names)
@AS_JSON
@click.pass_obj
def start(url: str | None, name: str, as_json: bool) -> None:
    """Put a terminated endpoint back on the air."""
    with client(url) as platform, show.Progress() as progress:
        view = platform.start(name, tell=progress.tell)
    show.as_json(view) if as_json else print(show.live(view))


@click.command()
@click.argument("name", shell_complete=names)
@click.argument("source", required=False)
@click.option("--weight", type=int, help=f"Percent of the calls that go to it.  [default: {WEIGHT}, or as it is]")
@click.option("--random", is_flag=True, help="By chance, as a new one is where nothing else is named.")
@click.option("--by-header", metavar="HEADER", help="By a header: each value goes to one version always.")
@click.option("--by-query", metavar="KEY", help="By a key of the query, likewise.")
@click.option("--shadow", is_flag=True, help="Copies of the calls, whose answers nobody is given.")
@click.option("--watch", type=float, metavar="SECONDS", help="Roll it back by what the last ones show; 0: do not.")
@click.option("--errors", type=float, metavar="SHARE", help="Most errors above the live one's.  [default: 0.02]")
@click.option("--latency", type=float, metavar="TIMES", help="Most times the live one's p95.  [default: 1.5]")
@click.option("--promote", is_flag=True, help="Make it live once it was clean for as long as it is watched.")
@click.option("--env", "-e", multiple=True, metavar="KEY=VALUE", help="An environment variable of its replicas.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting, such as idle_after=60.")
@click.option("--secret", "-s", "secrets", multiple=True, metavar="NAME", help="A secret of the platform.")
@click.option("--end", is_flag=True, help="End it: all calls go to the live revision.")
@AS_JSON
@click.pass_obj
def canary(url: str | None, /, name: str, source: str | None, end: bool, as_json: bool, **flags: Any) -> None:
    """Deploy SOURCE beside the live revision for a share of the calls; without it, change that share, or end it."""
    if end and (source is not None or any(flags.values())):
        raise click.UsageError("--end takes nothing else")
    if source is None and (flags["env"] or flags["settings"] or flags["secrets"]):
        raise click.UsageError("--env, --set and --secret are of a new revision: name its SOURCE")
    with client(url) as platform, show.Progress() as progress:
        if end:
            view = platform.vary(name, CANARY, None)
        elif source is None:
            now = show.variant_of(platform.get(name), CANARY)["rule"]
            view = platform.vary(name, CANARY, rule_of(flags, now))
        else:
            rule = rule_of(flags, RuleView(kind="random", by="", weight=WEIGHT))
            options = deploy_options(**{key: flags[key] for key in ("env", "settings", "secrets")})
            options |= {"variant": CANARY, "rule": rule, "tell": progress.tell}
            view = platform.deploy(source, name, **options)
    if as_json:
        return show.as_json(view)
    print(f"the canary of {name} has ended" if end else show.beside(view, CANARY))
    return None


def rule_of(flags: dict[str, Any], now: RuleView) -> RuleView:
    """The rule that the flags make of the one that is there. Raises BadRequest."""
    weight = now["weight"] if flags["weight"] is None else flags["weight"]
    kinds = {
        "random": flags["random"],
        "header": flags["by_header"],
        "query": flags["by_query"],
        "shadow": flags["shadow"],
    }
    chosen = [(kind, by) for kind, by in kinds.items() if by]
    if len(chosen) > 1:
        named = " and ".join(kind for kind, _ in chosen)
        raise BadRequest(
            f"a canary cannot be by {named} at once\nname one of --random, --by-header, --by-query and --shadow"
        )
    if not chosen:
        return {**now, "weight": weight, "watch": watch_of(flags, now)}
    ((kind, by),) = chosen
    by = by if isinstance(by, str) else ""
    return RuleView(kind=kind, by=by, weight=weight, watch=watch_of(flags, now))


def watch_of(flags: dict[str, Any], now: RuleView) -> dict[str, Any]:
    """The bounds that a canary is held to. Of one that becomes a shadow nothing is left to hold."""
    named = {"window": flags["watch"], "errors": flags["errors"], "latency": flags["latency"]}
    said: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if flags["promote"]:
        said["promote"] = True
    if flags["watch"] == 0 or (flags["shadow"] and not said):
        return {}
    return {**now.get("watch", {}), **said}
