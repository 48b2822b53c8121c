"""The head of a request: read strictly by RFC 9112, so that no two parsers on the way can disagree about it."""

from __future__ import annotations

import math
import re
from typing import Final

from router.proxy.limits import Limits
from router.proxy.lines import (
    CONNECTION,
    DROP,
    ENCODING,
    EXPECT,
    HOST,
    ID,
    LENGTH,
    OF_REQUEST,
    ONCE,
    OURS,
    OWN,
    QUEUE,
    SESSION,
    UPGRADE,
    VARIES,
    BadLine,
    Lines,
    quoted,
    remember,
    without,
    without_session,
)
from torpor.errors import BadRequest, BodyTooLarge, HeadersTooLarge, TorporError

_START: Final = re.compile(rb"([A-Z][A-Z-]{0,31}) (/[!-~]*|\*|[Hh][Tt][Tt][Pp][Ss]?://[!-~]+) HTTP/1\.([01])")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z]+://([^/?#]*)(.*)")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
# Tunnels that are not ours to give, and a method that echoes credentials back.
_NOT_FORWARDED: Final = frozenset((b"CONNECT", b"TRACE"))
_IGNORED: Final = frozenset((DROP, OWN))
_UNIQUE: Final = frozenset((HOST, LENGTH, ENCODING))
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110, 9.2.2

CHUNKED: Final = -1
_AROUND_TARGET: Final = 64  # bytes of a request line besides its target, at most


class RequestHead:
    """What the proxy needs of a request's head; `passed` are the lines that go on as they came.

    It may stand for many requests that read alike: never changed, but for the opening that was written of it last.
    """

    __slots__ = (
        "expect", "host", "keep", "length", "method", "minor", "opening", "opening_for", "passed", "path",
        "queue_within", "request_id", "session", "token", "upgrade",
    )  # fmt: skip

    def __init__(self, method: bytes, path: bytes, minor: int) -> None:
        self.method = method
        self.path = path
        self.minor = minor
        self.host = b""
        self.length = 0  # of the body, CHUNKED when not told
        self.keep = minor == 1  # the caller's connection stays open
        self.expect = False
        self.upgrade = b""
        self.request_id = b""
        self.token = b""  # the digest of a token of torpor's, which does not go on
        self.session = b""  # the digest of a session with the control plane, which goes to nothing else
        self.queue_within: float | None = None
        self.passed: list[bytes] = []
        self.opening = b""
        self.opening_for: tuple[bytes, bytes] | None = None


def bad(what: str, do: str = "Send a request that RFC 9112 allows.") -> BadRequest:
    return BadRequest(f"{what}\n{do}")


class Requests:
    """Reads the heads of requests, and remembers them."""

    __slots__ = ("_limits", "_lines", "known")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines = Lines(OF_REQUEST)
        self.known: dict[bytes, RequestHead] = {}

    def read(self, block: bytes) -> RequestHead:
        """Reads a head without its last empty line. Raises the error that refuses it.

        What `known` has of the block is the same, sooner.
        """
        limits = self._limits
        lines = block.split(b"\r\n")
        if not lines[0] and len(lines) > 1:  # one empty line before a request is let pass (RFC 9112, 2.2)
            del lines[0]
        head = _read_start(lines[0], limits)
        if len(lines) > limits.max_headers + 1:
            many = len(lines) - 1
            raise HeadersTooLarge(f"the request has {many} header lines, above {limits.max_headers}\nSend fewer.")
        special = self._sort(lines, head.passed)
        _read_host(head, special.get(HOST))
        _read_framing(head, special.get(LENGTH), special.get(ENCODING))
        if CONNECTION in special:
            _read_connection(head, special[CONNECTION], special.get(UPGRADE, b""))
        if OURS in special:
            head.token = special[OURS]
        if SESSION in special:
            head.session = special[SESSION]
        if EXPECT in special or ID in special or QUEUE in special:
            _read_wishes(head, special)
        if ONCE.isdisjoint(special):
            remember(self.known, block, head)
        return head

    def _sort(self, lines: list[bytes], passed: list[bytes]) -> dict[int, bytes]:
        """Fills `passed`; the values of the lines that mean something here."""
        special: dict[int, bytes] = {}
        seen, read = self._lines.seen, self._lines.read
        try:
            for line in lines[1:]:
                role, value = seen.get(line) or read(line)
                if not role:
                    passed.append(line)
                elif role == VARIES:
                    passed.append(line)
                    special[VARIES] = b""
                elif role in _IGNORED:
                    continue
                elif role == SESSION:
                    special[SESSION] = value
                    if rest := without_session(line):
                        passed.append(rest)
                elif role in special:
                    if role in _UNIQUE:
                        raise bad(f"the request has more than one {line.partition(b':')[0].decode()} header")
                    special[role] += b"," + value
                else:
                    special[role] = value
        except BadLine as fault:
            raise bad(f"not a header line: {fault}") from None
        return special


def check_partial(data: bytes, limits: Limits) -> None:
    """Refuses the start of a head that cannot become a right one, without waiting for its end."""
    if data[:2] == b"\r\n":
        data = data[2:]
    if data in (b"", b"\r"):
        return
    if not b"A" <= data[:1] <= b"Z":
        raise _bad_start(data)
    if len(data) > limits.max_target + _AROUND_TARGET and data.find(b"\r\n", 0, limits.max_target + _AROUND_TARGET) < 0:
        raise target_too_long(len(data), limits)
    if len(data) >= limits.max_header_bytes:
        raise HeadersTooLarge(
            f"the request's head is longer than {limits.max_header_bytes} bytes\nSend less in headers."
        )
    ends = data.count(b"\r\n")
    if data.count(b"\n") != ends or data.count(b"\r") != ends + data.endswith(b"\r"):
        raise bad("the request's head holds a line end that is not CR LF")


def _read_start(line: bytes, limits: Limits) -> RequestHead:
    match = _START.fullmatch(line)
    if match is None:
        raise _bad_start(line)
    method, target, minor = match.groups()
    if len(target) > limits.max_target:
        raise target_too_long(len(target), limits)
    if method in _NOT_FORWARDED or (target == b"*" and method != b"OPTIONS"):
        raise bad(f"{method.decode()} {target[:80].decode()} is not served")
    if b"#" in target:
        raise bad("the request target holds a fragment")
    return RequestHead(method, target, 1 if minor == b"1" else 0)


def target_too_long(size: int, limits: Limits) -> TorporError:
    error = bad(f"the request target has {size} bytes, above {limits.max_target}", "Send what it says in the body.")
    error.status = 414
    return error


def _bad_start(line: bytes) -> TorporError:
    if line.startswith(b"PRI * HTTP/2"):
        return bad("HTTP/2 is not spoken here", "Use HTTP/1.1.")
    return bad(f"not a request line: {quoted(line)}")


def _read_host(head: RequestHead, host: bytes | None) -> None:
    if host is None:
        if head.minor:
            raise bad("the request has no Host header")
        host = b""
    elif _HOST.fullmatch(host) is None:
        raise bad(f"not a host: {quoted(host)}")
    head.host = host
    if head.path[:1] != b"/" and head.path != b"*":
        match = _ABSOLUTE.fullmatch(head.path)
        if match is None or match[1].lower() != host.lower() or not host:
            raise bad("the request target and the Host header name different hosts")
        path = match[2]
        head.path = path if path[:1] == b"/" else b"/" + path


def _read_framing(head: RequestHead, length: bytes | None, encoding: bytes | None) -> None:
    if encoding is not None:
        if length is not None:
            raise bad("the request has both Content-Length and Transfer-Encoding")
        if not head.minor or encoding.lower() != b"chunked":
            raise bad(
                f"Transfer-Encoding {quoted(encoding)} is not served", "Use chunked over HTTP/1.1, or Content-Length."
            )
        head.length = CHUNKED
    elif length is not None:
        if _DIGITS.fullmatch(length) is None:
            raise bad(f"not a Content-Length: {quoted(length)}")
        head.length = int(length)


def body_too_large(size: int, limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has {size} bytes or more, above {limits.max_body_bytes}\nSend a smaller one, or raise max_body."
    )


def too_slow(what: str, within: float) -> BadRequest:
    error = BadRequest(f"{what} did not come within {within:g} s\nSend it faster, or in smaller parts.")
    error.status = 408
    return error


def _read_connection(head: RequestHead, value: bytes, upgrade: bytes) -> None:
    names = {name.strip(b" \t") for name in value.lower().split(b",")}
    if b"close" in names:
        head.keep = False
    elif b"keep-alive" in names:
        head.keep = True
    # An upgrade with a body is not one (RFC 9110, 7.8); h2c would carry calls past the proxy.
    if b"upgrade" in names and head.minor and head.length == 0 and not upgrade.lower().startswith(b"h2c"):
        head.upgrade = upgrade
    names -= {b"close", b"keep-alive", b"upgrade", b""}
    if names:
        head.passed = without(head.passed, names)


def _read_wishes(head: RequestHead, special: dict[int, bytes]) -> None:
    if EXPECT in special:
        if special[EXPECT].lower() != b"100-continue":
            error = bad(f"Expect {quoted(special[EXPECT])} cannot be met")
            error.status = 417
            raise error
        head.expect = head.minor == 1 and head.length != 0
    wished = special.get(ID)
    if wished is not None and _SANE_ID.fullmatch(wished):
        head.request_id = wished
    within = special.get(QUEUE)
    if within is not None:
        try:
            seconds = float(within)
        except ValueError:
            seconds = math.nan
        if not (0 <= seconds < math.inf):
            raise bad(f"not a number of seconds: {quoted(within)}", "Send X-Torpor-Queue-Within: 30, for example.")
        head.queue_within = seconds
