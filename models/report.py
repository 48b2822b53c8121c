"""The parity report: a table for a reader; the same rows are in the card."""

from __future__ import annotations

import sys
from typing import IO, Any

from models.export import Exported

# Title, key of the report's row, how a value is written.
FIGURES = (
    ("variant", "variant", "{}"),
    ("max abs error", "max_abs_error", "{:.2g}"),
    ("mean cosine", "cosine_mean", "{:.5f}"),
    ("min cosine", "cosine_min", "{:.4f}"),
    ("padded batch", "cosine_batched", "{:.5f}"),
    ("same class", "agreement", "{:.3f}"),
    ("ranking", "ranking", "{:.4f}"),
    ("same first", "first", "{:.3f}"),
    ("same neighbour", "neighbours", "{:.3f}"),
    ("task metric", "metric", "{:.4f}"),
    ("p50", "latency_p50", "ms"),
    ("open", "open", "ms"),
    ("size", "size", "MB"),
    ("memory", "memory", "MB"),
    ("anonymous", "anonymous", "MB"),
    ("gate", "passed", "gate"),
)


def cells(report: list[dict[str, Any]]) -> list[list[str]]:
    """The table's rows: a figure each, a column for each variant. A figure that no variant has is left out."""
    used = [figure for figure in FIGURES if any(figure[1] in row for row in report)]
    return [[title, *(_cell(row.get(key), form) for row in report)] for title, key, form in used]


def print_report(exported: Exported, stream: IO[str] | None = None) -> None:
    """Prints the table, and where the model is."""
    stream = stream or sys.stdout
    print_table(exported.card["report"], stream)
    if exported.card["worse"]:
        print(f"kept with --allow-worse: {', '.join(exported.card['worse'])}, below the gate's bounds", file=stream)
    print(f"{exported.model.tag} {'is already there' if exported.reused else 'stored'}", file=stream)


def print_table(report: list[dict[str, Any]], stream: IO[str]) -> None:
    """With rich on a terminal, as plain columns elsewhere."""
    rows = cells(report)
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(rows[0][0])
        for name in rows[0][1:]:
            table.add_column(name, justify="right")
        for row in rows[1:]:
            table.add_row(*row)
        Console(file=stream).print(table)
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=stream)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if form == "ms":
        return f"{value * 1000:.1f} ms"
    if form == "MB":
        return f"{value / 1e6:.1f} MB"
    if form == "gate":
        return "pass" if value else "below"
    return form.format(value)
