"""What a caller of an event stream is told while its call is parked: comments, and an error as an event."""

from __future__ import annotations

import json
import re
from typing import Final

from router.proxy.chunks import LAST, chunk
from router.proxy.head import RequestHead
from router.proxy.refusal import shape
from torpor.errors import TorporError

WAKING: Final = chunk(b": waking\n\n")
EVENTS: Final = b"text/event-stream"
_ACCEPT: Final = re.compile(rb"accept:[^\r\n]*text/event-stream", re.IGNORECASE)


def wants_events(head: RequestHead) -> bool:
    """The caller names event streams in Accept, and can take an answer whose length is not known."""
    return head.minor == 1 and head.method != b"HEAD" and any(map(_ACCEPT.match, head.passed))


def waking_head(call_id: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        b"X-Torpor-Cold-Start: true\r\nX-Request-Id: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % call_id
    )


def failed_events(error: TorporError, path: bytes) -> bytes:
    """The end of a stream whose call failed: the error in the shape of its path, as an event."""
    return chunk(b"event: error\ndata: %b\n\n" % json.dumps(shape(error, path)).encode()) + LAST
