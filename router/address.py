"""Where a router is reached: its address, the socket of its control plane, and the file that tells both."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

CONTROL = "control.sock"


def shown(host: str) -> str:
    """In a URL; that of all addresses is the loopback one, where it can be reached from here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)  # who may write here may do everything, without a token
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def write_address(path: Path, url: str, started_at: float, cacert: Path | None) -> None:
    """`<data>/torpor.json`: how `torpor down` and others find this router. `cacert`: what a client has to trust."""
    part = path.with_suffix(".part")
    control = str(path.parent / "run" / CONTROL)
    found = {"pid": os.getpid(), "url": url, "started_at": started_at, "control": control}
    part.write_text(json.dumps(found if cacert is None else {**found, "cacert": str(cacert)}))
    part.rename(path)
