"""A child that is forked before it is wanted, and waits for what it is to become.

Forking the fork-server takes 4 to 7 ms, its page tables being large, and the child's first steps copy some hundred
pages more. A spare has both behind it when a call comes. That it also writes the pages which each start writes
(counting references is writing) was tried: 40 MB more in each spare, and the session's opening is awaited all the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from torpor.host import packet


class Spare:
    """The parent's view of it. `line` ends when it is not wanted any more."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self._line = line

    def take(self, spec: dict[str, Any], descriptors: list[int], asked: float) -> bool:
        """Has it become the child of this spec. False where it is gone."""
        try:
            packet.send(self._line, {"spec": spec, "asked": asked}, descriptors)
        except OSError:
            return False
        finally:
            self._line.close()
        return True

    def discard(self) -> None:
        """It ends: it sees the end of its line."""
        self._line.close()


def wait(line: socket.socket, rehearse: Callable[[], None]) -> tuple[dict[str, Any], list[int], float]:
    """In the child: what it is to become. Ends the process where nothing comes any more."""
    rehearse()
    told, descriptors = packet.receive(line)
    if told is None:
        os._exit(0)
    line.close()
    return told["spec"], descriptors, told["asked"]
