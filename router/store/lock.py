"""One router a data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from router.disk import disk
from torpor.errors import Conflict, InvalidConfig


class DataLock:
    """Held from construction until `close`, or until the process ends however it ends.

    Raises Conflict where another router holds it, InvalidConfig where the folder cannot be used, DiskFull.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidConfig(
                f"the data folder {folder} cannot be used: {error.strerror}\nname another with --data"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode() or "unknown"
            os.close(self._fd)
            raise Conflict(
                f"a router (pid {holder}) uses {folder} already\n"
                f"stop it with `torpor down --data {folder}`, or use another --data"
            ) from None
        with disk(folder):
            os.ftruncate(self._fd, 0)
            os.write(self._fd, str(os.getpid()).encode())

    def close(self) -> None:
        os.close(self._fd)
