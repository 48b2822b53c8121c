"""Processes that outlived their router: written down when they start, found and ended when the next router starts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path

log = logging.getLogger("torpor.launch")

GONE_WITHIN = 10.0  # seconds until a killed process has left the table
BOOT = Path("/proc/sys/kernel/random/boot_id")


def born(pid: int) -> str | None:
    """When a process began, None when it is not there: pid and birth are a name for good.

    The boot, and the ticks since then: field 22 of proc(5)'s /proc/PID/stat, where the command's name before it may
    hold spaces and brackets. A zombie is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{BOOT.read_text().strip()}/{fields[19]}"


def signal_group(pid: int, number: int) -> None:
    """Signals a session leader's whole group, or itself where it has not become the leader yet.

    Only for one that is not reaped: then its pid may be somebody else's already.
    """
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def remember(folder: Path, name: str, pid: int) -> None:
    """Writes down that `pid`, a session leader, is ours. `forget` it once it is reaped."""
    path = folder / f"{name}.pid"
    part = folder / f"{name}.part"
    try:
        part.write_text(json.dumps({"pid": pid, "born": born(pid)}))
        part.rename(path)
    except OSError as error:  # no reason to end it: when its router dies it sees that, and ends itself
        log.warning("process %d is not written down in %s: %s", pid, path, error)


def forget(folder: Path, name: str) -> None:
    (folder / f"{name}.pid").unlink(missing_ok=True)


def reap(folder: Path) -> list[int]:
    """Kills the process groups that an earlier router wrote down, waits until they are gone, empties the folder."""
    found = [pid for path in folder.glob("*.pid") if (pid := left(path)) is not None]
    for pid in found:
        signal_group(pid, signal.SIGKILL)
    give_up = time.monotonic() + GONE_WITHIN
    while any(born(pid) is not None for pid in found) and time.monotonic() < give_up:
        time.sleep(0.005)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def left(path: Path) -> int | None:
    """The group that a file of `remember` names, if anything of it is left: itself, or children that outlived it.

    No process gets the pid of a group that still has members.
    """
    try:
        entry = json.loads(path.read_text())
        pid, birth = int(entry["pid"]), str(entry["born"])
        now = born(pid)
        if now is None and birth.startswith(BOOT.read_text().strip()):
            os.killpg(pid, 0)
            return pid
    except (OSError, ValueError, KeyError, TypeError):  # none of it is left, or the file is half a file
        return None
    return pid if now == birth else None
