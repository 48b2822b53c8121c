"""A packet of a control socket: one JSON object of any size up to 64 MiB, and the descriptors that travel with it.

A SOCK_SEQPACKET socket takes at most what its sending buffer holds: 213 KB, or twice the kernel's `net.core.wmem_max`
where it is asked for. So a longer object lies in a memory file, whose descriptor comes last; the packet says how
long it is.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any

INLINE = 1 << 14  # bytes
LARGEST = 64 << 20  # bytes
DESCRIPTORS = 8
LARGE = "large"  # the only key of a packet whose object is in a memory file


class TooLong(ValueError):
    """An object that no packet takes; the message is one sentence."""


def send(ends: socket.socket, told: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Raises TooLong, BlockingIOError where the socket does not block and is full, OSError."""
    body = json.dumps(told).encode()
    if len(body) <= INLINE:
        socket.send_fds(ends, [body], list(descriptors))
        return
    if len(body) > LARGEST:
        raise TooLong(f"what is to be told takes {len(body)} bytes, more than {LARGEST}")
    with os.fdopen(os.memfd_create("packet"), "wb") as file:
        file.write(body)
        file.flush()
        socket.send_fds(ends, [json.dumps({LARGE: len(body)}).encode()], [*descriptors, file.fileno()])


def receive(ends: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next object and its descriptors, which are the caller's to close; None at the end of file.

    Raises BlockingIOError where the socket does not block and nothing waits, OSError, ValueError for what is no packet.
    """
    body, descriptors, _, _ = socket.recv_fds(ends, INLINE, DESCRIPTORS)
    if not body:
        return None, descriptors
    try:
        told = _object(body)
        if LARGE in told:
            size = told[LARGE]
            if not descriptors or not isinstance(size, int):
                raise ValueError("a packet names a body that did not come with it")
            told = _object(_content(descriptors.pop(), size))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return told, descriptors


def _object(body: bytes) -> dict[str, Any]:
    told = json.loads(body)
    if not isinstance(told, dict):
        raise ValueError("a packet is no object")
    return told


def _content(descriptor: int, size: int) -> bytes:
    """What a memory file holds; closes it. Anything else is not read: a pipe would block."""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not 0 < size <= LARGEST:
            raise ValueError("a packet names a body that is none")
        file.seek(0)
        return file.read(size)
