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
    """A process's proportional set size in bytes (proc(5), smaps_rollup), None when it is gone."""
    if pid is None:
        return None
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
