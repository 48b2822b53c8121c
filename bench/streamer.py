"""`python -m bench.streamer SOCKET`: server-sent events, each its own write, with the instant of that write in it.

`GET /<streams>/<events>/<rate>` is answered once so many streams have asked; then so many events a second go out in
all, one after the other to each stream in turn, so that no two of them can be read as one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
_ASKED = re.compile(rb"GET /(\d+)/(\d+)/(\d+)")
EVENT = re.compile(rb'data: \{"at": (\d{19})')
_PADDING = b"a token of an answer, as long as one with its envelope is in a usual streaming interface"


def event(now: int) -> bytes:
    """One chunk: the event, with an instant of the machine's monotonic clock in nanoseconds."""
    payload = b'data: {"at": %019d, "text": "%b"}\n\n' % (now, _PADDING)
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def asked(line: socket.socket) -> tuple[int, int, int]:
    """Streams, events and events a second, as the next request says."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = line.recv(65536)
        if not piece:
            raise ConnectionError("a request broke off")
        head += piece
    match = _ASKED.match(head)
    if match is None:
        raise ConnectionError(f"not a request of this server: {head[:80]!r}")
    streams, events, rate = map(int, match.groups())
    return streams, events, rate


def play(listener: socket.socket) -> None:
    """One load: waits for its streams, then writes its events."""
    lines: list[socket.socket] = []
    with contextlib.ExitStack() as open_lines:
        wanted, events, rate = 1, 0, 1
        while len(lines) < wanted:
            line = open_lines.enter_context(listener.accept()[0])
            wanted, events, rate = asked(line)
            line.sendall(_HEAD)
            lines.append(line)
        begun = time.monotonic()
        for serial in range(events):
            time.sleep(max(0.0, begun + serial / rate - time.monotonic()))
            lines[serial % wanted].sendall(event(time.monotonic_ns()))
        for line in lines:
            line.sendall(b"0\r\n\r\n")


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(128)
        print("listening", flush=True)
        while True:
            with contextlib.suppress(ConnectionError):
                play(listener)


if __name__ == "__main__":
    main()
