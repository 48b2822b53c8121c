"""What the commands print: tables and lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import IO, Any

import click
from rich.console import Console
from rich.table import Table

from torpor.errors import FixTheCall, GaveUp, NeverArrived, TorporError, TryLater

CODES: tuple[tuple[type[TorporError], int], ...] = ((FixTheCall, 3), (TryLater, 4), (GaveUp, 5), (NeverArrived, 6))
AS_JSON = "torpor.as_json"  # where a command's context keeps whether JSON was asked for


class Failed(click.ClickException):
    """An error of the tree, as the command line ends with it."""

    def __init__(self, error: TorporError, as_json: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.exit_code = exit_code(error)  # type: ignore[misc]  # per instance: it depends on the error's class
        self._as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        if self._as_json:
            return as_json(self.error.body())
        print(self.error.message, file=sys.stderr)
        for line in self.error.detail.get("log", ()):
            print(f"  | {line}", file=sys.stderr)
        return None


def exit_code(error: TorporError) -> int:
    """3 fix the call, 4 try later, 5 gave up, 6 never arrived; click itself exits with 2 for a wrong usage."""
    return next((code for kind, code in CODES if isinstance(error, kind)), 5)


def as_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    out = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        out.add_column(column, no_wrap=True)
    for row in rows:
        out.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(out)


def size(count: int | None) -> str:
    return "" if count is None else f"{count / (1 << 20):.1f} MiB"


def ago(instant: float | None) -> str:
    if instant is None:
        return "never"
    seconds = max(0.0, time.time() - instant)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def phases(seconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value * 1000:.1f} ms" for name, value in seconds.items())
