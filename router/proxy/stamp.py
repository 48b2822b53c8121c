"""What the router writes into heads: framing and connection of its own, the request id, cold start and timing."""

from __future__ import annotations

import re
from typing import Final

from router.proxy.answer import AnswerHead
from router.proxy.calls import Lease
from router.proxy.head import CHUNKED, RequestHead

_PHASE: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_BODIED: Final = frozenset((b"POST", b"PUT", b"PATCH"))  # a body is expected of them, so its absence is stated


def to_replica(head: RequestHead, path: bytes, forwarded: bytes, call_id: str) -> bytes:
    """The request's head as a replica sees it. `forwarded`: the lines that say who called, up to the host."""
    host = head.host
    parts = [b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, path, host), *head.passed]
    parts.append(b"%b%b\r\nX-Request-Id: %b" % (forwarded, host, call_id.encode()))
    if head.length > 0:
        parts.append(b"Content-Length: %d" % head.length)
    elif head.length == CHUNKED:
        parts.append(b"Transfer-Encoding: chunked")
    elif head.method in _BODIED:
        parts.append(b"Content-Length: 0")
    if head.upgrade:
        parts.append(b"Connection: Upgrade\r\nUpgrade: " + head.upgrade)
    parts.append(b"\r\n")
    return b"\r\n".join(parts)


def to_caller(head: AnswerHead, call_id: str, lease: Lease | None, router: float, framing: bytes) -> bytes:
    """The answer's head as the caller sees it. `router`: seconds; `framing`: whole lines, or nothing."""
    parts = [head.start, *head.passed]
    if lease is not None:
        timing = _timing(lease, router)
        cold = b"true" if lease.cold else b"false"
        if head.timing:
            timing = head.timing + b", " + timing
        parts.append(
            b"Server-Timing: %b\r\nX-Torpor-Cold-Start: %b\r\nX-Request-Id: %b\r\n%b\r\n"
            % (timing, cold, call_id.encode(), framing)
        )
    else:
        if head.timing:
            parts.append(b"Server-Timing: " + head.timing)
        parts.append(b"X-Request-Id: %b\r\n%b\r\n" % (call_id.encode(), framing))
    return b"\r\n".join(parts)


def _timing(lease: Lease, router: float) -> bytes:
    own = b"router;dur=%.3f" % (router * 1000)
    if lease.parked:
        own = b"park;dur=%.3f, %b" % (lease.parked * 1000, own)
    for phase, seconds in lease.phases.items():
        if _PHASE.fullmatch(phase):
            own = b"%b;dur=%.3f, %b" % (phase.encode(), seconds * 1000, own)
    return own
