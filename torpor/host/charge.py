"""What the kernel charges this process's control group for memory: for a replica that it has ended for lack of it."""

from __future__ import annotations

from pathlib import Path

# By version of control groups, as a container sees its own: the file of counts, the limit, the most that was used.
V2 = ("memory.events", "memory.max", "memory.peak")
V1 = ("memory/memory.oom_control", "memory/memory.limit_in_bytes", "memory/memory.max_usage_in_bytes")
MiB = 1 << 20


class Charge:
    """`root`: where control groups are mounted."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._root = root
        self._files = V2 if (root / V2[0]).exists() else V1
        self._seen = self.kills()

    def kills(self) -> int:
        """How many processes the kernel has ended here; 0 where it does not tell."""
        for line in self._read(0).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
        return 0

    def told(self) -> str:
        """What to say of a process that a signal ended just now; "" where it was not the kernel, for its memory."""
        before, self._seen = self._seen, self.kills()
        if self._seen == before:
            return ""
        limit, peak = self._read(1).strip(), self._read(2).strip()
        told = "was ended by the kernel for lack of memory"
        if limit.isdigit() and peak.isdigit():
            told += f": its container may use {int(limit) / MiB:.0f} MiB, and used {int(peak) / MiB:.0f} MiB"
        return told

    def _read(self, which: int) -> str:
        try:
            return (self._root / self._files[which]).read_text()
        except OSError:
            return ""
