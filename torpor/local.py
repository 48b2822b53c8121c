"""Where this machine's platform is: its data folder, and the address that it wrote there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def data_folder(data: str | None = None) -> Path:
    """The argument, else $TORPOR_DATA, else the default folder."""
    return Path(data or os.environ.get("TORPOR_DATA") or "~/.local/share/torpor").expanduser().absolute()


def read_address(data: Path) -> dict[str, Any] | None:
    """`{"pid", "url", "started_at"}` of the platform that runs on a data folder, as far as it wrote; else None."""
    try:
        found = json.loads((data / "torpor.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("url"), str) else None
