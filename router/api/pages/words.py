"""How the pages say instants, sizes and distrusted text."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from markupsafe import Markup

LINE_MAX = 2000  # characters shown of one line
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")  # what a terminal would obey
# Control characters, and those that turn the direction of what follows: they would show a text as another one.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """What services and callers wrote, as characters that can be seen. Escaping it is the template's part."""
    lines = _COLOURS.sub("", str(text).replace("\r\n", "\n")).split("\n")
    cut = (line if len(line) <= LINE_MAX else line[:LINE_MAX] + " …" for line in lines)
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", "\n".join(cut))


def when(instant: float | None) -> Markup:
    """An instant in seconds since the epoch, in UTC: the page does not know its reader's clock."""
    if instant is None:
        return Markup("never")
    at = datetime.fromtimestamp(instant, UTC)
    shown = Markup('<time datetime="{}"><span>{}</span> <span>{}</span></time>')
    return shown.format(at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime("%Y-%m-%d"), at.strftime("%H:%M:%S"))


def size(count: int | None) -> str:
    """Bytes."""
    return "not measured yet" if not count else f"{count / (1 << 20):.1f} MiB"


def took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def counted(number: int, what: str) -> str:
    """`3 replicas`, `1 replica`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
