"""The run folder: sockets and files of what runs, one for all launchers of a router."""

from __future__ import annotations

import os
from pathlib import Path

from router.launch.orphans import reap


class RunFolder:
    """A socket's path is at most 108 bytes long; through the folder's descriptor it is short wherever the folder is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def open(self) -> list[int]:
        """Ends what an earlier router left running; the pids. Blocks for as long as that takes."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = reap(self.path)
        self._fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def socket(self, name: str) -> str:
        """The path of a socket in it, as this process can open it. Raises OSError while the folder is not open."""
        return self.at(f"{name}.sock")

    def at(self, place: str) -> str:
        return f"/proc/self/fd/{self._fd}/{place}"
