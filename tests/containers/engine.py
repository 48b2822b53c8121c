"""A container engine for the tests: the one that runs, or a Podman of their own; and what of theirs it is left with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from router.launch.container.api import find_socket
from torpor.errors import EngineUnreachable

BASE = "docker.io/library/python:3.11-slim"
SCRIPT = Path(__file__).with_name("base-images.sh")
STARTS_WITHIN = 30.0  # seconds of an engine of our own
MADE_WITHIN = 600.0  # seconds of the base images


class NoEngine(Exception):
    """Why none can be had here."""


@contextmanager
def ready_engine(folder: Path) -> Iterator[Path]:
    """The socket of one that answers: that which torpor would find, or one that is ended after. Raises NoEngine."""
    with contextlib.suppress(EngineUnreachable):
        if answers(found := find_socket(None)):
            yield found
            return
    podman = shutil.which("podman")
    if podman is None:
        raise NoEngine("no container engine answers, and podman is not installed")
    with own_engine([podman], folder / "engine.sock") as own:
        yield own


@contextmanager
def own_engine(podman: list[str], socket: Path) -> Iterator[Path]:
    """`podman` with its options, such as a root of its own, serving at `socket`. Raises NoEngine."""
    with socket.with_suffix(".log").open("w+") as log:
        command = [*podman, "system", "service", "--time=0", f"unix://{socket}"]
        # In its own folder: conmon leaves a file where it runs, for a container that ran out of memory.
        service = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=socket.parent)
        try:
            until = time.monotonic() + STARTS_WITHIN
            while not answers(socket):
                if service.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise NoEngine(f"{' '.join(command)} does not answer: {log.read().strip()}")
                time.sleep(0.05)
            yield socket
        finally:
            service.terminate()
            service.wait(STARTS_WITHIN)


def answers(socket: Path) -> bool:
    try:
        return asked(socket, "GET", "/_ping").status_code == 200
    except httpx.HTTPError:
        return False


def asked(socket: Path, method: str, path: str, **more: Any) -> httpx.Response:
    """One request to the engine, with the test's own client, so that torpor's is not its own witness."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=60) as client:
        return client.request(method, path, **more)


def make_base_image(socket: Path) -> str:
    """The image that others are built on, made if it is missing. Raises NoEngine."""
    if asked(socket, "GET", f"/images/{BASE}/json").status_code == 200:
        return BASE
    kind = "podman" if "podman" in asked(socket, "GET", "/version").text.lower() else "docker"
    env = {**os.environ, "ENGINE": kind}
    done = subprocess.run([str(SCRIPT)], env=env, capture_output=True, text=True, timeout=MADE_WITHIN)
    if done.returncode != 0:
        raise NoEngine(f"{SCRIPT.name}: {done.stderr.strip() or done.stdout.strip()}")
    return BASE


def remove_labelled(socket: Path, label: str) -> None:
    """Containers, running or not, and images that have a label (`key`, or `key=value`)."""
    filters = json.dumps({"label": [label]})
    for each in listed(socket, "/containers/json", all="true", filters=filters):
        asked(socket, "DELETE", f"/containers/{each['Id']}", params={"force": "true", "v": "true"})
    for each in listed(socket, "/images/json", filters=filters):
        asked(socket, "DELETE", f"/images/{each['Id']}", params={"force": "true"})


def listed(socket: Path, path: str, **params: str) -> list[dict[str, Any]]:
    """Podman cannot list while somebody removes what it lists: it is asked again."""
    give_up = time.monotonic() + STARTS_WITHIN
    while (answer := asked(socket, "GET", path, params=params)).status_code != 200:
        assert time.monotonic() < give_up, answer.text
        time.sleep(0.1)
    return list(answer.json() or ())
