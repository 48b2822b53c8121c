"""The bounds of the listener: what one caller may make it hold, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, durations in seconds."""

    max_header_bytes: int = 64 * KIB  # of one head, request line included; above it 431
    max_headers: int = 128  # header lines of one head; above it 431
    max_target: int = 16 * KIB  # of a request target; above it 414
    max_body_bytes: int = 1024 * KIB * KIB  # of one call; above it 413 (the control plane bounds its own)
    read_ahead: int = 64 * KIB  # read of a body while its call is parked, or of the next pipelined request
    replay_bytes: int = 64 * KIB  # a larger request is never sent twice
    header_within: float = 30.0  # a head's last byte after its first; later is 408
    body_within: float = 60.0  # the next byte of a body after the one before; later is 408
    keep_alive: float = 75.0  # an idle connection is closed after this
    send_within: float = 60.0  # a caller that takes nothing of its answer for so long is dropped
    answer_within: float = 600.0  # the first byte of an answer after the request was sent; later is 504
    waking_every: float = 15.0  # a parked caller who asked for an event stream is told that it is not forgotten
    linger: float = 2.0  # a refused caller's unread bytes are discarded for so long before the close
    max_idle: int = 256  # pooled connections kept to one replica
