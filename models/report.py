"""The parity report: a table for a reader; the same rows are in the card."""

from __future__ import annotations

import sys
from typing import IO, Any

from models.export import Exported

# Column title, key of the report's row, how a value is written.
COLUMNS = (
    ("variant", "variant", "{}"),
    ("max abs error", "max_abs_error", "{:.2g}"),
    ("mean cosine", "cosine_mean", "{:.5f}"),
    ("min cosine", "cosine_min", "{:.4f}"),
    ("padded batch", "cosine_batched", "{:.5f}"),
    ("same class", "agreement", "{:.3f}"),
    ("ranking", "ranking", "{:.4f}"),
    ("same neighbour", "neighbours", "{:.3f}"),
    ("task metric", "metric", "{:.4f}"),
    ("p50", "latency_p50", "ms"),
    ("open", "open", "ms"),
    ("size", "size", "MB"),
    ("memory", "memory", "MB"),
    ("anonymous", "anonymous", "MB"),
    ("gate", "passed", "gate"),
)


def cells(report: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the table; a column that no variant fills is left out."""
    used = [column for column in COLUMNS if any(column[1] in row for row in report)]
    return [title for title, _, _ in used], [[_cell(row.get(key), form) for _, key, form in used] for row in report]


def print_report(exported: Exported, stream: IO[str] | None = None) -> None:
    """Prints the table, with rich on a terminal and as plain columns elsewhere, and where the model is."""
    stream = stream or sys.stdout
    titles, rows = cells(exported.card["report"])
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*titles)
        for row in rows:
            table.add_row(*row)
        Console(file=stream).print(table)
    else:
        widths = [max(len(row[at]) for row in [titles, *rows]) for at in range(len(titles))]
        for row in [titles, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=stream)
    if exported.card["worse"]:
        print(f"kept with --allow-worse: {', '.join(exported.card['worse'])} is below the gate's bounds", file=stream)
    print(f"{exported.model.tag} {'is already there' if exported.reused else 'stored'}", file=stream)


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
