"""Header lines: their grammar, what each name means to a proxy, and a memory of the lines and heads seen.

Clients repeat most of their lines in every request, and often whole heads, so what was read once is looked up, not
parsed again. The memory is bounded, and holds only what passed every check.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeVar

from torpor.wire import CLOUD_TOKEN, OWN_TOKEN, SESSION_COOKIE, TOKEN_TEXT

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9110, 5.5: a value holds no control character but tab. RFC 9112, 5.1: no space before the colon.
_LINE: Final = re.compile(rb"(" + TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*+)")

# What a line is to the proxy. PASS is 0, so that the common case is one truth test.
PASS, DROP, HOST, LENGTH, ENCODING, CONNECTION, UPGRADE, EXPECT, ID, QUEUE, TIMING, OWN, VARIES = range(13)
OURS, BEARER = 13, 14  # a token of torpor's; credentials that may be one
SESSION, COOKIE = 15, 16  # a browser's session with the control plane; cookies that may have one among them

_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +(%b)" % TOKEN_TEXT.pattern)

# A browser sends a host's cookies to all its ports: to the endpoints' own too, which ours is not for.
_SESSION: Final = re.compile(rb"(?:^|;)[ \t]*%b=([^;]*?)[ \t]*(?=;|$)" % SESSION_COOKIE.encode())

_HOP: Final = {
    b"content-length": LENGTH,
    b"transfer-encoding": ENCODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
}
OF_REQUEST: Final = _HOP | {
    b"host": HOST,
    b"expect": EXPECT,
    b"x-request-id": ID,
    b"x-torpor-queue-within": QUEUE,
    b"authorization": BEARER,
    OWN_TOKEN.lower().encode(): OURS,
    CLOUD_TOKEN.lower().encode(): OURS,
    b"cookie": COOKIE,
    # Only the router may say who called.
    b"forwarded": DROP,
    b"x-forwarded-for": DROP,
    b"x-forwarded-proto": DROP,
    b"x-forwarded-host": DROP,
    b"http2-settings": DROP,
    b"traceparent": VARIES,
    b"tracestate": VARIES,
    b"idempotency-key": VARIES,
    b"trailer": DROP,  # so are a request's trailers
}
OF_ANSWER: Final = _HOP | {
    b"server-timing": TIMING,
    b"set-cookie": VARIES,
    b"etag": VARIES,
    b"x-request-id": ID,
}
OWN_PREFIX: Final = b"x-torpor-"  # names that only torpor itself may speak: OWN, unless the table says otherwise

# Lines that differ in each call are passed on like others, but neither they nor their heads are worth remembering.
ONCE: Final = frozenset((VARIES, ID, TIMING))
_DIGESTED: Final = frozenset((OURS, SESSION))
_SECRET: Final = re.compile(rb"tp_[A-Za-z0-9_-]+")
_SEEN_MAX: Final = 2048
_LINE_BYTES: Final = 256  # the longest line that is remembered
_HEAD_BYTES: Final = 2048

Fact = tuple[int, bytes]
Head = TypeVar("Head")


def remember(known: dict[bytes, Head], block: bytes, head: Head) -> None:
    """Keeps a head that was read under the bytes it was read from."""
    if len(block) <= _HEAD_BYTES:
        if len(known) >= _SEEN_MAX:
            known.clear()
        known[block] = head


class BadLine(ValueError):
    """A line that is not a header line by RFC 9112."""


class Lines:
    """Reads header lines of one direction: `seen.get(line) or read(line)` gives (role, value)."""

    __slots__ = ("_roles", "seen")

    def __init__(self, roles: dict[bytes, int]) -> None:
        self._roles = roles
        self.seen: dict[bytes, Fact] = {}

    def read(self, line: bytes) -> Fact:
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadLine(quoted(line))
        name = match[1].lower()
        role = self._roles.get(name)
        if role is None:
            role = OWN if name.startswith(OWN_PREFIX) else PASS
        value = match[2].strip(b" \t")
        if role == BEARER:  # an endpoint's own credentials are its own: they go on
            bearer = _BEARER.fullmatch(value)
            role, value = (OURS, bearer[1]) if bearer else (PASS, value)
        elif role == COOKIE:
            session = _SESSION.search(value)
            role, value = (SESSION, session[1]) if session else (PASS, value)
        fact = (role, hashlib.sha256(value).digest() if role in _DIGESTED else value)
        if len(line) <= _LINE_BYTES and role not in ONCE:
            if len(self.seen) >= _SEEN_MAX:
                self.seen.clear()
            self.seen[line] = fact
        return fact


def quoted(value: bytes) -> str:
    """The start of what a caller sent, for a message: never a token."""
    return repr(_SECRET.sub(b"tp_...", value)[:80])[1:]


def without_session(line: bytes) -> bytes:
    """A line of cookies as it goes on: empty where ours was the only one."""
    name, _, value = line.partition(b":")
    rest = _SESSION.sub(b"", value).strip(b"; \t")
    return b"%b: %b" % (name, rest) if rest else b""


def without(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """The lines whose name is not among `names` (lower case): what `Connection` nominated is not passed on."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
