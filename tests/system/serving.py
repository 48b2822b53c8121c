"""Stock `bentoml serve` of one of our services, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def serving(target: str, environment: Mapping[str, str], folder: Path) -> Iterator[httpx.Client]:
    """A client of `bentoml serve TARGET`, started at the repository's root; its log goes to `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("w+")
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", target]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        cwd=REPOSITORY,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # its workers are ended with it, and nothing else
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(client, server, Path(log.name))
            yield client
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes], log: Path, tries: int = 300) -> None:
    for _ in range(tries):
        assert server.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())
