"""What the router writes into heads: framing and connection of its own, the request id, cold start and timing."""

from __future__ import annotations

import re
from typing import Final

from router.proxy.answer import AnswerHead
from router.proxy.calls import Lease
from router.proxy.head import CHUNKED, RequestHead
from torpor.wire import HOLDER, SESSION

_HOLDER: Final = HOLDER.encode()
_SESSION: Final = SESSION.encode()
_PHASE: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_COLD: Final = b"\r\nX-Torpor-Cold-Start: true\r\nX-Request-Id: "
_WARM: Final = b"\r\nX-Torpor-Cold-Start: false\r\nX-Request-Id: "
_SHORT: Final = [b"router;dur=%d.%03d" % divmod(microseconds, 1000) for microseconds in range(1000)]
_BODIED: Final = frozenset((b"POST", b"PUT", b"PATCH"))  # a body is expected of them, so its absence is stated


def to_replica(head: RequestHead, path: bytes, forwarded: bytes, call_id: bytes, payload: bytes) -> bytes:
    """The request as a replica sees it. `forwarded`: the lines that say who called, up to the host; `payload`: what
    has come of the body, in its coding.
    """
    if head.opening_for != (path, forwarded):
        head.opening = _opening(head, path, forwarded)
        head.opening_for = (path, forwarded)
    return b"".join((head.opening, call_id, b"\r\n\r\n", payload))


def told_of(head: RequestHead, forwarded: bytes) -> bytes:
    """`forwarded` for the control plane, which is told whose token and session it was; lines of these names are not
    taken from callers.
    """
    for name, digest in ((_HOLDER, head.token), (_SESSION, head.session)):
        if digest:
            forwarded = b"%b: %b\r\n%b" % (name, digest.hex().encode(), forwarded)
    return forwarded


def _opening(head: RequestHead, path: bytes, forwarded: bytes) -> bytes:
    """All lines that are the same when the same is asked again, up to the call's id."""
    parts = [b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, path, head.host), *head.passed]
    parts.append(forwarded + head.host)
    if head.length > 0:
        parts.append(b"Content-Length: %d" % head.length)
    elif head.length == CHUNKED:
        parts.append(b"Transfer-Encoding: chunked")
    elif head.method in _BODIED:
        parts.append(b"Content-Length: 0")
    if head.upgrade:
        parts.append(b"Connection: Upgrade\r\nUpgrade: " + head.upgrade)
    parts.append(b"X-Request-Id: ")
    return b"\r\n".join(parts)


def to_caller(
    head: AnswerHead, call_id: bytes, timing: bytes, lease: Lease | None, router: float, framing: bytes, body: bytes
) -> bytes:
    """The answer as the caller sees it, as far as it has come.

    `timing`: the replica's Server-Timing; `router`: seconds in the router, parked ones included; `framing`: whole
    lines, or nothing.
    """
    if lease is None:
        stated = b"Server-Timing: %b\r\n" % timing if timing else b""
        return b"%b\r\n%bX-Request-Id: %b\r\n%b\r\n%b" % (head.opening, stated, call_id, framing, body)
    if timing:
        timing += b", "
    if lease.parked or lease.phases:
        timing += _waking(lease)
        router = max(0.0, router - lease.parked)
    microseconds = int(router * 1e6)
    own = _SHORT[microseconds] if microseconds < 1000 else b"router;dur=%.3f" % (router * 1000)
    cold = _COLD if lease.cold else _WARM
    # Twice as quick as a format.
    return b"".join((head.opening, b"\r\nServer-Timing: ", timing, own, cold, call_id, b"\r\n", framing, b"\r\n", body))


def _waking(lease: Lease) -> bytes:
    """The phases of the start, and the time parked, as the beginning of a Server-Timing."""
    phases = [(phase, seconds) for phase, seconds in lease.phases.items() if _PHASE.fullmatch(phase)]
    if lease.parked:
        phases.append(("park", lease.parked))
    return b"".join(b"%b;dur=%.3f, " % (phase.encode(), seconds * 1000) for phase, seconds in phases)
