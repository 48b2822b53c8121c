"""The chunked coding (RFC 9112, 7.1), read strictly and incrementally; extensions are checked and dropped."""

from __future__ import annotations

import re
from typing import Final

from router.proxy.lines import OF_ANSWER, OF_REQUEST, PASS, TOKEN, BadLine, Lines, quoted

# No spaces: RFC 9112 lets a sender have none, and parsers disagree about them.
_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb'|"(?:[^\x00-\x08\x0a-\x1f\x7f"\\]|\\[\t -~])*"))?)*'
)
_LINE_MAX: Final = 256  # of a size line with its extensions
_TRAILERS_MAX: Final = 8192
_SIZE_LINE, _PAYLOAD, _AFTER, _TRAILERS = range(4)
_TRAILER_LINES: Final = Lines(OF_REQUEST | OF_ANSWER)

LAST: Final = b"0\r\n\r\n"


class BadChunk(ValueError):
    """Not the chunked coding."""


class Chunks:
    """One chunked body: `feed` takes bytes off the line and gives payload."""

    __slots__ = ("_left", "_state", "_tail", "_trailers", "rest", "trailers")

    def __init__(self) -> None:
        self._state = _SIZE_LINE
        self._left = 0  # payload bytes still to come in this chunk
        self._tail = b""  # the start of a line whose end has not come
        self._trailers = 0  # bytes of them
        self.trailers: list[bytes] = []  # the lines that mean nothing to a proxy
        self.rest: bytes | None = None  # what came after the body; None until the body has ended

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises BadChunk; sets `rest` at the end."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        out: list[bytes] = []
        at = 0
        while at >= 0 and self.rest is None:
            if self._state == _PAYLOAD:
                at = self._payload(data, at, out)
            elif self._state == _SIZE_LINE:
                at = self._size(data, at)
            elif self._state == _AFTER:
                at = self._after(data, at)
            else:
                at = self._trailer(data, at)
        return out[0] if len(out) == 1 else b"".join(out)

    # Each step gives the place where the next one starts, or -1 when the data is used up.

    def _payload(self, data: bytes, at: int, out: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if piece:
            out.append(piece)
            self._left -= len(piece)
        if self._left:
            return -1
        self._state = _AFTER
        return at + len(piece)

    def _after(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            self._state = _SIZE_LINE
            return at + 2
        if end in (b"", b"\r"):
            self._tail = end
            return -1
        raise BadChunk(f"a chunk's payload is followed by {end!r}")

    def _line(self, data: bytes, at: int, most: int) -> int:
        """The end of the line that starts at `at`, or -1 when it has not come."""
        end = data.find(b"\r\n", at, at + most)
        if end < 0:
            tail = data[at:]
            if len(tail) >= most or b"\n" in tail or b"\r" in tail[:-1]:
                raise BadChunk(f"a line of the chunked coding reads {quoted(tail)}")
            self._tail = tail
        return end

    def _size(self, data: bytes, at: int) -> int:
        end = self._line(data, at, _LINE_MAX)
        if end < 0:
            if self._tail and self._tail[0] not in b"0123456789abcdefABCDEF":
                raise BadChunk(f"not a chunk size: {quoted(self._tail)}")
            return -1
        match = _SIZE.fullmatch(data, at, end)
        if match is None:
            raise BadChunk(f"not a chunk size: {quoted(data[at:end])}")
        self._left = int(match[1], 16)
        self._state = _PAYLOAD if self._left else _TRAILERS
        return end + 2

    def _trailer(self, data: bytes, at: int) -> int:
        end = self._line(data, at, _TRAILERS_MAX)
        if end < 0:
            return -1
        if end == at:
            self.rest = data[at + 2 :]
            return -1
        self._trailers += end - at
        if self._trailers > _TRAILERS_MAX:
            raise BadChunk(f"trailers above {_TRAILERS_MAX} bytes")
        line = data[at:end]
        try:
            if _TRAILER_LINES.read(line)[0] == PASS:
                self.trailers.append(line)
        except BadLine as fault:
            raise BadChunk(f"a trailer reads {fault}") from None
        return end + 2


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def last(trailers: list[bytes]) -> bytes:
    return b"\r\n".join((b"0", *trailers, b"", b"")) if trailers else LAST
