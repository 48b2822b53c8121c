"""A service that fails as it is told to. It is deployed from this very text, and imported by nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import bentoml

LEAKED: list[bytearray] = []


def mode() -> str:
    """How a start goes, from the file that the deploy names: "", "hang", "fail" or "unready"."""
    path = Path(os.environ["VICTIM_MODE"])
    return path.read_text() if path.exists() else ""


def connections(listening: bool) -> Iterator[socket.socket]:
    """Duplicates of this process's own: the one that listens for calls, or those that the router has opened."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            found = socket.socket(fileno=os.dup(int(name)))
            stream = found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM
            # asyncio's own wake-up pair is of this kind too, but has no name
            if stream and found.getsockname() and listens(found) == listening:
                yield found
            found.close()
        except OSError:
            continue


def listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@bentoml.service
class Victim:
    def __init__(self) -> None:
        if mode() == "hang":
            time.sleep(3600)
        if mode() == "fail":
            raise RuntimeError("told to fail")

    def __is_ready__(self) -> bool:
        return mode() != "unready"

    @bentoml.api
    def hello(self, name: str) -> str:
        return f"hello {name}"

    @bentoml.api
    async def nap(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @bentoml.api
    async def count(self, upto: int, pause: float) -> AsyncGenerator[str, None]:
        for number in range(upto):
            yield f"{number}\n"
            await asyncio.sleep(pause)

    @bentoml.api
    def refuse(self) -> str:
        raise RuntimeError("told to raise")

    @bentoml.api
    def die(self) -> str:
        os._exit(3)

    @bentoml.api
    async def deafen(self) -> int:
        """From now on it does not hear TERM."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return os.getpid()

    @bentoml.api
    async def garble(self) -> str:
        """Its answer is no HTTP."""
        for each in connections(listening=False):
            each.send(b"garbage, and no answer\r\n\r\n")
        await asyncio.sleep(3600)
        return ""

    @bentoml.api
    async def hang_up(self) -> int:
        """Its socket is closed, and its process lives."""
        for each in connections(listening=True):
            each.shutdown(socket.SHUT_RDWR)
        asyncio.get_running_loop().call_later(0.05, self._cut)
        return os.getpid()

    def _cut(self) -> None:
        for each in connections(listening=False):
            each.shutdown(socket.SHUT_RDWR)

    @bentoml.api
    def leak(self, mib: int) -> int:
        LEAKED.append(bytearray(b"x") * (mib << 20))
        return sum(map(len, LEAKED)) >> 20

    @bentoml.api
    def fork(self, mib: int) -> list[int]:
        """Pids of a child and of a child of that; each holds memory and ends by itself only after an hour."""
        text = (
            "import subprocess, sys, time; held = b'x' * ({mib} << 20); "
            "more = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)']); "
            "print(more.pid, flush=True); time.sleep(3600)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", text.replace("{mib}", str(mib))], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        return [child.pid, int(child.stdout.readline())]
