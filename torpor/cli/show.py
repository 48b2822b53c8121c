"""What the commands print: tables and lines for people, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import click

from torpor.errors import NotFound
from torpor.wire import EndpointView, ReplicaView, VariantView


def as_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns under their titles, where there are any. Nothing is cut: a narrow terminal wraps."""
    titled = any(columns)
    cells = [list(columns), *map(list, rows)] if titled else [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if titled and number == 0 else line)


def started(found: dict[str, Any]) -> None:
    """A platform that has come up."""
    print(f"torpor listens on {found['url']} (pid {found['pid']})")
    if "cacert" in found:
        where = found["cacert"]
        print(f"its certificate is self-signed; to trust it: export TORPOR_CACERT={where}, or curl --cacert {where}")
    if "token" in found:
        print(f"a token for everything, shown this once: {found['token']}")
        print("keep it: export TORPOR_TOKEN=..., or Authorization: Bearer ...")


class Progress(AbstractContextManager["Progress"]):
    """Long work on stderr: a line a phase, and on a terminal a spinner beside what goes on now."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = ExitStack()
        self._status = self._console.status("") if self._console.is_terminal else None
        self._phase = ""

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._live.enter_context(self._status)
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.close()

    def tell(self, phase: str, detail: str) -> None:
        """A phase begins; a "log" is a line of what it says meanwhile: on a terminal the last one stands for all."""
        if phase == "log" and self._status is not None:
            from rich.text import Text  # a builder's words are no markup

            line = f"{self._phase:<22} {detail}"
            return self._status.update(Text(line[: self._console.width - 4]))
        if phase == "log":
            return self._console.print(f"  | {detail}", soft_wrap=True)
        self._phase = phase
        if self._status is not None:
            self._status.update(phase)
        self._console.print(f"{phase:<22} {detail}".rstrip(), soft_wrap=True)


def size(count: int | None) -> str:
    return "" if count is None else f"{count / (1 << 20):.1f} MiB"


def taken(replica: ReplicaView) -> str:
    """The memory of a replica, and of its graphics cards where it has some."""
    if not replica["cards"]:
        return size(replica["memory"])
    return f"{size(replica['memory'])} and {size(replica['gpu_memory'])} on {', '.join(replica['cards'])}"


def ago(instant: float | None) -> str:
    if instant is None:
        return "never"
    seconds = max(0.0, time.time() - instant)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def rung(view: EndpointView) -> list[tuple[str, str]]:
    """Rows of a table: where an endpoint is on its ladder, since when and why, and what comes next."""
    found = view["rung"]
    steps = " -> ".join(f"[{name}]" if name == found["name"] else name for name in found["ladder"])
    since = "" if found["since"] is None else f", since {ago(found['since']).removesuffix(' ago')}"
    return [("rung", f"{steps}{since}"), ("why", found["why"]), ("next", found["next"])]


def phases(seconds: dict[str, float]) -> str:
    return "  ".join(f"{name} {value * 1000:.1f} ms" for name, value in seconds.items())


def variant_of(view: EndpointView, variant: str) -> VariantView:
    """Raises NotFound."""
    name = view["name"]
    for each in view["variants"]:
        if each["name"] == variant:
            return each
    raise NotFound(f"{name!r} has no variant {variant!r}\nmake it: torpor canary {name} SOURCE --weight 10")


def live(view: EndpointView) -> str:
    return f"{view['name']} (revision {view['revision']}, {view['bento']}) answers at {view['url']}"


def beside(view: EndpointView, variant: str) -> str:
    """A variant in a sentence: what it gets, and where it answers."""
    found = variant_of(view, variant)
    rule = found["rule"]
    by = f" by {rule['kind']} {rule['by']}" if rule["by"] else ""
    gets = {
        "address": "",
        "shadow": f" gets copies of {rule['weight']}% of the calls, and",
    }.get(rule["kind"], f" gets {rule['weight']}% of the calls{by}, and")
    return f"{view['name']}~{variant} (revision {found['revision']}, {found['bento']}){gets} answers at {found['url']}"
