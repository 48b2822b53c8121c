"""The machine that endpoints run on: its memory and its cores, as far as this process may use them."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.8  # of the memory is for endpoints, where the owner says nothing else
# A container's own limit, of the two versions of control groups.
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_total() -> int:
    """Bytes of memory: the machine's, or the container's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUPS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def share(threads: int, replicas: int) -> int:
    """Intra-op threads of one replica: what was asked for, but no more than the cores allow for all `replicas`."""
    return max(1, min(threads, cores() // max(1, replicas)))


def memory(pid: int | None) -> int | None:
    """Bytes that a process and the children of its own session take, None when it is gone.

    What a fork-server or a template forks leads a session of its own, and is measured by itself.
    """
    size = own_memory(pid) if pid is not None else None
    if pid is None or size is None:
        return None
    return size + sum(memory(child) or 0 for child in children(pid))


def children(pid: int) -> list[int]:
    """A process's children that are in its session (proc(5), task/TID/children), none when it is gone."""
    found: list[int] = []
    try:
        session = os.getsid(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:  # gone meanwhile, or a thread of it
        return []
    return [child for child in found if in_session(child, session)]


def in_session(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


def own_memory(pid: int) -> int | None:
    """A process's proportional set size in bytes (proc(5), smaps_rollup), None when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
