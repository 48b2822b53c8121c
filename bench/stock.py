"""Stock `bentoml serve` of the embedding service, and calls of it and of torpor alike."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bench.platform import BIN, ROOT
from torpor import Client

BODY = json.dumps({"texts": ["The kitten naps in the sun."]})
EMBEDDING = ROOT / "services" / "embedding"
SERVE_WITHIN = 60.0  # seconds


@contextlib.contextmanager
def serving(precision: str, source: Path = EMBEDDING) -> Iterator[tuple[int, int]]:
    """The pid and the port of a server that has been started; it need not answer yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = subprocess.Popen(
        [str(BIN / "bentoml"), "serve", ".", "--host", "127.0.0.1", "--port", str(port)],
        cwd=source,
        env={**os.environ, "TORPOR_PRECISION": precision},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield server.pid, port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def first_answer(port: int) -> None:
    """Returns after the last byte of the first answer. Raises TimeoutError."""
    give_up = time.perf_counter() + SERVE_WITHIN
    while time.perf_counter() < give_up:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if post("127.0.0.1", port, "/embed")[0] == 200:
                return
        time.sleep(0.005)
    raise TimeoutError(f"`bentoml serve` gave no answer within {SERVE_WITHIN:.0f} s")


def post(host: str, port: int, path: str, body: str = BODY) -> tuple[int, dict[str, str]]:
    line = http.client.HTTPConnection(host, port, timeout=SERVE_WITHIN)
    try:
        line.request("POST", path, body, {"Content-Type": "application/json"})
        answer = line.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        line.close()


def call(client: Client, endpoint: str, method: str = "embed", body: str = BODY) -> tuple[int, dict[str, str]]:
    """A call over a connection of its own."""
    where = urlsplit(client.url)
    return post(where.hostname or "", where.port or 80, f"/endpoints/{endpoint}/{method}", body)
