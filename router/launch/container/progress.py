"""An engine's stream of progress as lines: whole ones, without the bars and colours of whoever printed them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
BAR = re.compile(r"[━╸╺█▏▎▍▌▋▊▉░▒▓]{3}|[=#\-]{8}>|^\(Reading database \.\.\. *\d*%?$")
# How engines tell of what they keep and copy.
LAYER = re.compile(
    r"^ ?-{2,3}> |^Removing intermediate container |^[0-9a-f]{64}$|^Copying (blob|config) sha256:"
    r"|^(Getting image source signatures|Writing manifest to image destination|Storing signatures)$"
)
LINE_MAX = 2000  # characters


class Lines:
    """A build's output comes in pieces that may end anywhere in a line."""

    def __init__(self) -> None:
        self._rest = ""

    def of(self, told: Mapping[str, Any]) -> list[str]:
        """The lines that one object of the stream completes."""
        if (text := told.get("stream")) is not None:
            *whole, self._rest = (self._rest + str(text)).split("\n")
        else:  # a pull says of each layer how far it is: only what has no figures is said once
            whole = [] if told.get("progressDetail") else [_layer(told)]
        return [line for line in map(cleaned, whole) if line]

    def end(self) -> list[str]:
        rest, self._rest = cleaned(self._rest), ""
        return [rest] if rest else []


def _layer(told: Mapping[str, Any]) -> str:
    name, status = str(told.get("id") or ""), str(told.get("status") or "")
    return f"{name}: {status}" if name and status else status


def cleaned(line: str) -> str:
    """As a terminal shows it in the end; "" for a bar, or an engine's note on a layer."""
    shown = ESCAPE.sub("", line).rstrip("\r\n ").rpartition("\r")[2]
    return "" if BAR.search(shown) or LAYER.match(shown) else shown.rstrip()[:LINE_MAX]
