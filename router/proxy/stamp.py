"""What the router writes into heads: framing and connection of its own, the request id, cold start and timing."""

from __future__ import annotations

import re
from typing import Final

from router.proxy.answer import AnswerHead
from router.proxy.calls import Lease
from router.proxy.head import CHUNKED, RequestHead

_PHASE: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_BODIED: Final = frozenset((b"POST", b"PUT", b"PATCH"))  # a body is expected of them, so its absence is stated


def to_replica(head: RequestHead, path: bytes, forwarded: bytes, call_id: bytes) -> bytes:
    """The request's head as a replica sees it. `forwarded`: the lines that say who called, up to the host."""
    if head.opening_for != (path, forwarded):
        head.opening = _opening(head, path, forwarded)
        head.opening_for = (path, forwarded)
    return b"%bX-Request-Id: %b\r\n\r\n" % (head.opening, call_id)


def _opening(head: RequestHead, path: bytes, forwarded: bytes) -> bytes:
    """All lines that are the same when the same is asked again."""
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
    parts.append(b"")
    return b"\r\n".join(parts)


def to_caller(head: AnswerHead, call_id: bytes, timing: bytes, lease: Lease | None, framing: bytes) -> bytes:
    """The answer's head as the caller sees it. `framing`: whole lines, or nothing."""
    if lease is not None:
        cold = b"true" if lease.cold else b"false"
        return b"%b\r\nServer-Timing: %b\r\nX-Torpor-Cold-Start: %b\r\nX-Request-Id: %b\r\n%b\r\n" % (
            head.opening,
            timing,
            cold,
            call_id,
            framing,
        )
    stated = b"Server-Timing: %b\r\n" % timing if timing else b""
    return b"%b\r\n%bX-Request-Id: %b\r\n%b\r\n" % (head.opening, stated, call_id, framing)


def with_own_timing(timing: bytes, lease: Lease, router: float) -> bytes:
    """The replica's Server-Timing and ours. `router`: seconds."""
    own = b"router;dur=%.3f" % (router * 1000)
    if lease.parked:
        own = b"park;dur=%.3f, %b" % (lease.parked * 1000, own)
    for phase, seconds in lease.phases.items():
        if _PHASE.fullmatch(phase):
            own = b"%b;dur=%.3f, %b" % (phase.encode(), seconds * 1000, own)
    return b"%b, %b" % (timing, own) if timing else own
