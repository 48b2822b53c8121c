"""`torpor top`: what every endpoint does now, as a table that is drawn anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from torpor.cli import show
from torpor.cli.group import AS_JSON, client

if TYPE_CHECKING:
    from rich.table import Table

    from torpor.wire import EndpointView

COLUMNS = ("NAME", "STATE", "CALLS/S", "IN FLIGHT", "PARKED", "REPLICAS", "MEMORY", "RUNG", "LAST COLD START")


@click.command()
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between two looks.")
@AS_JSON
@click.pass_obj
def top(url: str | None, once: bool, every: float, as_json: bool) -> None:
    """Watch the endpoints: states, calls, memory; ends with Ctrl-C. With --json one array a look."""
    with client(url) as platform:
        looks = seen(lambda: (time.monotonic(), platform.list()), every)
        if once or as_json:
            for rows in looks:
                show.as_json(rows) if as_json else show.table(COLUMNS, map(cells, rows))
                if once:
                    return
        from rich.live import Live

        with Live(auto_refresh=False, screen=True) as live:
            for rows in looks:
                live.update(drawn(rows), refresh=True)


def seen(look: Any, every: float) -> Iterator[list[dict[str, Any]]]:
    """One row an endpoint, again and again. The first look has nothing to compare with: its rates are None."""
    before: dict[str, int] = {}
    at: float | None = None
    while True:
        now, views = look()
        yield [row(view, before.get(view["name"]), None if at is None else now - at) for view in views]
        before, at = {view["name"]: view["calls"] for view in views}, now
        time.sleep(every)


def row(view: EndpointView, calls_before: int | None, seconds: float | None) -> dict[str, Any]:
    """`memory` in bytes, of replicas and template; `cold_start` in seconds, of the replica that started last."""
    replicas, template = view["replicas"], view["template"]
    newest = max((r for r in replicas if r["phases"]), key=lambda r: r["since"], default=None)
    phases = newest["phases"] if newest else {}
    rate = None if calls_before is None or not seconds else max(0, view["calls"] - calls_before) / seconds
    return {
        "name": view["name"],
        "state": view["state"],
        "calls_per_second": rate,
        "in_flight": view["in_flight"],
        "parked": view["parked"],
        "replicas": len(replicas),
        "memory": sum(r["memory"] or 0 for r in replicas) + (template["memory"] if template else 0),
        "rung": view["rung"]["name"],
        "template": template["state"] if template else None,
        "cold_start": sum(phases.values()) if phases else None,
    }


def cells(row: dict[str, Any]) -> list[str]:
    rate, cold = row["calls_per_second"], row["cold_start"]
    return [
        row["name"],
        row["state"],
        "" if rate is None else f"{rate:.1f}",
        *(str(row[key]) for key in ("in_flight", "parked", "replicas")),
        show.size(row["memory"] or None),
        row["rung"],
        "" if cold is None else f"{cold * 1000:.1f} ms",
    ]


def drawn(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for number, title in enumerate(COLUMNS):
        table.add_column(title, justify="left" if number in (0, 1, 7) else "right", no_wrap=True)
    for each in rows:
        table.add_row(*(Text(cell) for cell in cells(each)))
    return table
