"""Files of secrets in the run folder of a replica: its owner's alone, and gone with that folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "TORPOR_SECRETS"  # tells a replica the folder


def write_files(run: Path, files: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Writes files by their place in a folder of their own; the variable that tells where it is. None, nothing."""
    folder = run / "secrets"
    for place, content in files:
        path = folder / place
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    return {VARIABLE: str(folder)} if folder.exists() else {}
