"""What the callers do: as many requests as go through, a steady few, or streams that are read as they come."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.debian import libraries
from bench.sides import BODY, EVENTS, PLAIN, Cores, Side
from bench.streamer import EVENT

CONNECTIONS = 64
RATE = 200  # requests a second of the steady load
STREAMS = 20
EVENT_RATE = 1000  # events a second, over all streams
_WITHIN = 30.0  # seconds until an answer that does not come is a failure

_ALIKE = """
wrk.method = "POST"
wrk.body = string.rep("x", %d)
wrk.headers["Content-Type"] = "application/json"
"""
_DIFFERENT = """
local requests, at = {}, 0
init = function(args)
    for i = 1, 4096 do
        wrk.headers["traceparent"] = string.format("00-%%032x-%%016x-01", i, i)
        requests[i] = wrk.format()
    end
end
request = function()
    at = at %% 4096 + 1
    return requests[at]
end
"""


@dataclass(frozen=True, slots=True)
class Full:
    """A full load: requests a second by the clock, and by the proxy's CPU time."""

    by_clock: float
    by_cpu: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """A load of streams, per event: the proxy's CPU time, the median from its write to its receipt (seconds), reads."""

    cpu: float
    took: float
    reads: float


def full(side: Side, wrk: str, folder: Path, cores: Cores, *, alike: bool) -> Full:
    """Keeps each connection busy for a second: wrk knows no shorter time, and short loads compare best.

    `alike`: every request is the same; else each has a trace id of its own.
    """
    script = folder / ("alike.lua" if alike else "different.lua")
    script.write_text((_ALIKE + ("" if alike else _DIFFERENT)) % BODY)
    command = ["taskset", "-c", str(cores.others), wrk, "-t1", f"-c{CONNECTIONS}", "-d1s", "-s", str(script)]
    url = f"http://127.0.0.1:{side.port}{side.prefix}/{PLAIN}/predict"
    before = side.cpu()
    said = subprocess.run([*command, url], check=True, capture_output=True, text=True, env=libraries()).stdout
    used = side.cpu() - before
    counted = re.search(r"(\d+) requests in ([0-9.]+)s", said)
    if counted is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"a load through {side.name} was not answered as it should be:\n{said}")
    requests = int(counted[1])
    return Full(requests / float(counted[2]), requests / used)


@dataclass(slots=True)
class Line:
    """A caller's connection: what has come of the answer that it waits for, and when it asked."""

    socket: socket.socket
    asked_at: float = 0.0
    answer: bytes = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def ask(self, request: bytes) -> None:
        self.answer = b""
        self.asked_at = time.perf_counter()
        self.socket.sendall(request)

    def read(self) -> bool:
        """True when the answer has come whole. Raises RuntimeError where it is not the one that was asked for."""
        self.answer += self.socket.recv(65536)
        head = self.answer.find(b"\r\n\r\n")
        if not self.answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a steady load was not answered as it should be: {self.answer[:200]!r}")
        return head > 0 and len(self.answer) == head + 4 + BODY


def steady(side: Side, seconds: float) -> list[float]:
    """Seconds from each request to its answer's last byte. A request goes out when it is due, answered or not."""
    request = (
        f"POST {side.prefix}/{PLAIN}/predict HTTP/1.1\r\nHost: 127.0.0.1:{side.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n{'x' * BODY}"
    ).encode()
    due = [time.perf_counter() + 0.01 + serial / RATE for serial in range(int(seconds * RATE))]
    took: list[float] = []
    idle: list[Line] = []
    asked = 0
    # Not epoll, whose waits are in whole milliseconds.
    with contextlib.ExitStack() as open_lines, selectors.SelectSelector() as waiting:
        while len(took) < len(due):
            pause = due[asked] - time.perf_counter() if asked < len(due) else _WITHIN
            for key, _ in waiting.select(max(0.0, pause)):
                line: Line = key.data
                if line.read():
                    took.append(time.perf_counter() - line.asked_at)
                    idle.append(line)
            if asked < len(due) and time.perf_counter() >= due[asked]:
                if not idle:
                    idle.append(Line(open_lines.enter_context(connected(side))))
                    waiting.register(idle[-1], selectors.EVENT_READ, idle[-1])
                idle.pop().ask(request)
                asked += 1
    return took


def streamed(side: Side, seconds: float) -> Streamed:
    """Streams that are all open at once, each event a write of its own upstream. Raises where an event is missing."""
    events = int(seconds * EVENT_RATE)
    path = f"{side.prefix}/{EVENTS}/{STREAMS}/{events}/{EVENT_RATE}"
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{side.port}\r\n\r\n".encode()
    took: list[float] = []
    with contextlib.ExitStack() as open_lines, selectors.DefaultSelector() as waiting:
        for _ in range(STREAMS):
            line = open_lines.enter_context(connected(side))
            line.sendall(request)
            waiting.register(line, selectors.EVENT_READ)
        before, reads = side.cpu(), 0
        while waiting.get_map():
            for key, _ in waiting.select(_WITHIN):
                piece = key.fileobj.recv(65536)  # type: ignore[union-attr]
                now = time.monotonic_ns()
                found = EVENT.findall(piece)
                took += [(now - int(at)) / 1e9 for at in found]
                reads += bool(found)
                if not piece or piece.endswith(b"\r\n0\r\n\r\n") or piece == b"0\r\n\r\n":
                    waiting.unregister(key.fileobj)
        used = side.cpu() - before
    if len(took) != events:
        raise RuntimeError(f"{len(took)} events of {events} came through {side.name}")
    return Streamed(used / events, statistics.median(took), reads / events)


def connected(side: Side) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", side.port), _WITHIN)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line
