"""The head of a replica's answer, and how the end of its body is known."""

from __future__ import annotations

import re
from typing import Final

from router.proxy.calls import Outcome
from router.proxy.lines import (
    CONNECTION,
    DROP,
    ENCODING,
    LENGTH,
    OF_ANSWER,
    ONCE,
    OWN,
    TIMING,
    UPGRADE,
    VARIES,
    BadLine,
    Lines,
    quoted,
    remember,
    without,
)
from torpor.errors import BadAnswer

_START: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])((?: [^\x00-\x08\x0a-\x1f\x7f]*)?)")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_TIMING: Final = b"\r\nServer-Timing: "
_control: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_FRAMING: Final = frozenset((LENGTH, ENCODING))
_IGNORED: Final = frozenset((DROP, OWN))

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


class AnswerHead:
    """What the proxy needs of an answer's head. It may stand for many answers that read alike: never changed."""

    __slots__ = ("framing", "keep", "length", "opening", "outcome", "plain", "stated", "status", "timing", "upgrade")

    def __init__(self, status: bytes) -> None:
        self.status = int(status)
        self.opening = b""  # the lines that go on as they came, the status line first
        self.keep = True  # the replica's connection stays open
        self.length = UNTIL_CLOSE  # of the body: bytes, CHUNKED or UNTIL_CLOSE
        self.stated = b""  # Content-Length as stated, also where no body follows
        self.timing = b""
        self.upgrade = b""
        self.framing = b""  # header lines that say it to a caller of HTTP/1.1
        self.plain = self.status != 101  # nothing is switched
        self.outcome = Outcome.FAILED if self.status >= 500 else Outcome.DONE  # of its lease, when it has come whole


def bad_answer(what: str) -> BadAnswer:
    return BadAnswer(f"the replica's answer is not HTTP: {what}\nLook at the endpoint's log.")


class Answers:
    """Reads the heads of answers, and remembers them."""

    __slots__ = ("_known", "_lines")

    def __init__(self) -> None:
        self._known: dict[bytes, AnswerHead] = {}
        self._lines = Lines(OF_ANSWER)

    def read(self, block: bytes, method: bytes, trusted: bool) -> tuple[AnswerHead, bytes]:
        """The head, and its Server-Timing, of a block without its last empty line. Raises BadAnswer.

        `trusted`: torpor itself speaks, so its X-Torpor lines go on.
        """
        before, mark, timing = block.partition(_TIMING)
        if mark:  # the one line that differs in each answer of a replica
            timing, more, after = timing.partition(b"\r\n")
            if _control(timing) is not None:
                raise bad_answer(f"a header line reads {quoted(timing)}")
            block = before + more + after if more else before
        if trusted or method == b"HEAD":
            head = self._read(block, method, trusted, None)
        else:
            head = self._known.get(block) or self._read(block, method, trusted, self._known)
        if head.timing:
            timing = timing + b", " + head.timing if timing else head.timing
        return head, timing

    def _read(self, block: bytes, method: bytes, trusted: bool, known: dict[bytes, AnswerHead] | None) -> AnswerHead:
        lines = block.split(b"\r\n")
        start = _START.fullmatch(lines[0])
        if start is None:
            raise bad_answer(f"it starts with {quoted(lines[0])}")
        minor, status, reason = start.groups()
        head = AnswerHead(status)
        head.keep = minor == b"1"
        passed, special = self._sort(lines, trusted)
        passed[0] = b"HTTP/1.1 " + status + (reason or b" ")
        if CONNECTION in special:
            passed = _read_connection(head, special[CONNECTION], passed)
        head.opening = b"\r\n".join(passed)
        head.timing = special.get(TIMING, b"")
        head.upgrade = special.get(UPGRADE, b"")
        _read_framing(head, special.get(LENGTH), special.get(ENCODING), method)
        if known is not None and ONCE.isdisjoint(special):
            remember(known, block, head)
        return head

    def _sort(self, lines: list[bytes], trusted: bool) -> tuple[list[bytes], dict[int, bytes]]:
        """The lines that go on (the first is the start line), and the values of those that mean something here."""
        passed, special = lines[:1], {}
        seen, read = self._lines.seen, self._lines.read
        try:
            for line in lines[1:]:
                role, value = seen.get(line) or read(line)
                if not role:
                    passed.append(line)
                elif role == VARIES or (role == OWN and trusted):
                    passed.append(line)
                    special[VARIES] = b""
                elif role in special:
                    if role in _FRAMING:
                        raise bad_answer("a framing header comes twice")
                    special[role] += b", " + value
                elif role not in _IGNORED:
                    special[role] = value
        except BadLine as fault:
            raise bad_answer(f"a header line reads {fault}") from None
        return passed, special


def _read_connection(head: AnswerHead, value: bytes, passed: list[bytes]) -> list[bytes]:
    names = {name.strip(b" \t") for name in value.lower().split(b",")}
    if b"close" in names:
        head.keep = False
    elif b"keep-alive" in names:
        head.keep = True
    names -= {b"close", b"keep-alive", b"upgrade", b""}
    return without(passed, names) if names else passed


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
    if head.stated:
        head.framing = b"Content-Length: %b\r\n" % head.stated
    elif head.length < 0:
        head.framing = b"Transfer-Encoding: chunked\r\n"
