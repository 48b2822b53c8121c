"""Processes that outlived their router: written down when they start, found and ended when the next router starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

GONE_WITHIN = 10.0  # seconds until a killed process has left the table


def born(pid: int) -> str | None:
    """A process's start time as the kernel counts it, None when it is not there: pid and birth are a name for good.

    Field 22 of proc(5)'s /proc/PID/stat; the command name before it may hold spaces and brackets. A zombie is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def remember(folder: Path, name: str, pid: int) -> None:
    """Writes down that `pid`, a session leader, is ours. `forget` it once it is reaped."""
    path = folder / f"{name}.pid"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"pid": pid, "born": born(pid)}))
    part.rename(path)


def forget(folder: Path, name: str) -> None:
    (folder / f"{name}.pid").unlink(missing_ok=True)


def reap(folder: Path) -> list[int]:
    """Kills the process groups that an earlier router wrote down, waits until they are gone, empties the folder."""
    found = []
    for path in folder.glob("*.pid"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            entry = json.loads(path.read_text())
            if entry["born"] is not None and born(entry["pid"]) == entry["born"]:
                found.append(int(entry["pid"]))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    give_up = time.monotonic() + GONE_WITHIN
    while any(born(pid) is not None for pid in found) and time.monotonic() < give_up:
        time.sleep(0.005)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found
