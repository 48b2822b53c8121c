"""The head of a replica's answer, and how the end of its body is known."""

from __future__ import annotations

import re
from typing import Final

from router.proxy.lines import (
    CONNECTION,
    DROP,
    ENCODING,
    LENGTH,
    OF_ANSWER,
    OWN,
    TIMING,
    UPGRADE,
    BadLine,
    Lines,
    quoted,
    without,
)
from torpor.errors import BadAnswer

_START: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])((?: [^\x00-\x08\x0a-\x1f\x7f]*)?)")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_LINES: Final = Lines(OF_ANSWER)
_FRAMING: Final = frozenset((LENGTH, ENCODING))

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


class AnswerHead:
    """What the proxy needs of an answer's head; `passed` are the lines that go on as they came."""

    __slots__ = ("keep", "length", "passed", "start", "stated", "status", "timing", "upgrade")

    def __init__(self, minor: bytes, status: bytes, reason: bytes) -> None:
        self.status = int(status)
        self.start = b"HTTP/1.1 " + status + (reason or b" ")
        self.keep = minor == b"1"  # the replica's connection stays open
        self.length = UNTIL_CLOSE  # of the body: bytes, CHUNKED or UNTIL_CLOSE
        self.stated = b""  # Content-Length as stated, also where no body follows
        self.timing = b""
        self.upgrade = b""
        self.passed: list[bytes] = []


def bad_answer(what: str) -> BadAnswer:
    return BadAnswer(f"the replica's answer is not HTTP: {what}\nLook at the endpoint's log.")


def read_answer(block: bytes, method: bytes, *, trusted: bool = False) -> AnswerHead:
    """Reads a head without its last empty line; `trusted`: torpor speaks, X-Torpor lines go on. Raises BadAnswer."""
    lines = block.split(b"\r\n")
    start = _START.fullmatch(lines[0])
    if start is None:
        raise bad_answer(f"it starts with {quoted(lines[0])}")
    head = AnswerHead(*start.groups())
    passed = head.passed
    special: dict[int, bytes] = {}
    seen, read = _LINES.seen, _LINES.read
    try:
        for line in lines[1:]:
            role, value = seen.get(line) or read(line)
            if not role:
                passed.append(line)
            elif role == OWN:
                if trusted:
                    passed.append(line)
            elif role in special:
                if role in _FRAMING:
                    raise bad_answer("a framing header comes twice")
                special[role] += b", " + value
            elif role != DROP:
                special[role] = value
    except BadLine as fault:
        raise bad_answer(f"a header line reads {fault}") from None
    if CONNECTION in special:
        _read_connection(head, special[CONNECTION])
    head.timing = special.get(TIMING, b"")
    head.upgrade = special.get(UPGRADE, b"")
    _read_framing(head, special.get(LENGTH), special.get(ENCODING), method)
    return head


def _read_connection(head: AnswerHead, value: bytes) -> None:
    names = {name.strip(b" \t") for name in value.lower().split(b",")}
    if b"close" in names:
        head.keep = False
    elif b"keep-alive" in names:
        head.keep = True
    names -= {b"close", b"keep-alive", b"upgrade", b""}
    if names:
        head.passed = without(head.passed, names)


def _read_framing(head: AnswerHead, length: bytes | None, encoding: bytes | None, method: bytes) -> None:
    if length is not None:
        if encoding is not None:
            raise bad_answer("it has both Content-Length and Transfer-Encoding")
        if _LENGTH.fullmatch(length) is None:
            raise bad_answer(f"its Content-Length reads {quoted(length)}")
        head.length = int(length)
        head.stated = length
    elif encoding is not None:
        if encoding.lower() != b"chunked":
            raise bad_answer(f"its Transfer-Encoding reads {quoted(encoding)}")
        head.length = CHUNKED
    status = head.status
    if status < 200 or status == 204:
        head.length, head.stated = 0, b""  # no body, and nothing may be said of its length (RFC 9110, 8.6)
    elif method == b"HEAD" or status == 304:
        head.length = 0
    elif head.length == UNTIL_CLOSE:
        head.keep = False
