"""What a bench prints: rows of torpor beside its peers, for people or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `ratio` above 1 means that torpor is better; `goal` is the least ratio to reach."""

    name: str
    torpor: str
    peer: str
    other: str
    ratio: float | None
    goal: float | None
    met: bool

    @classmethod
    def of(cls, name: str, torpor: str, peer: str, ratio: float, goal: float, other: str = "") -> Row:
        return cls(name, torpor, peer, other, round(ratio, 3), goal, ratio >= goal)


def show(bench: str, conditions: Mapping[str, Any], rows: Sequence[Row], as_json: bool) -> None:
    """Prints the table, or `{"bench", "conditions", "rows"}` as one line of JSON."""
    if as_json:
        print(json.dumps({"bench": bench, "conditions": dict(conditions), "rows": [asdict(row) for row in rows]}))
        return
    table = Table("", "torpor", "peer", "other", "ratio", "goal", "met", title=bench)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        goal = "" if row.goal is None else f"{row.goal:g}"
        table.add_row(row.name, row.torpor, row.peer, row.other, ratio, goal, "yes" if row.met else "NO")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name}: {value}" for name, value in conditions.items()), style="dim")
