"""The container engine that torpor finds here, asked by the bench itself: its floor, and what its containers take."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.memory import family, pss
from router.launch.container.api import charged, find_socket
from router.launch.container.containerfile import PLATFORM as MADE_BY
from router.launch.container.spec import ENDPOINT, PLATFORM
from torpor.errors import EngineUnreachable

WITHIN = 120.0  # seconds for one answer
TRIES = 50  # of a removal
ROUNDS = 100  # of removals: an image goes when the one that is built on it has gone


class Refused(Exception):
    """The engine's words."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes. `charged`: by the engine's count of the control groups; `beside`: PSS of what it runs for them on the
    host, such as Podman's monitors."""

    pss: int
    charged: int
    beside: int


class Engine:
    """Raises EngineUnreachable where there is none."""

    def __init__(self) -> None:
        configured = os.environ.get("TORPOR_ENGINE")
        self.socket = find_socket(Path(configured) if configured else None)
        transport = httpx.HTTPTransport(uds=str(self.socket))
        self._http = httpx.Client(transport=transport, base_url="http://engine", timeout=WITHIN)
        try:
            told = self._http.get("/version").raise_for_status().json()
        except httpx.HTTPError as error:
            raise EngineUnreachable(
                f"the container engine at {self.socket} does not answer: {error}\n"
                "start it (systemctl start podman.socket), or name another: TORPOR_ENGINE=/path/to.sock"
            ) from error
        parts = " ".join(str(each.get("Name", "")) for each in told.get("Components") or ())
        self.name = "podman" if "podman" in parts.lower() else "docker"
        self.version = str(told.get("Version", ""))

    def close(self) -> None:
        self._http.close()

    # Containers

    def create(self, name: str, config: dict[str, Any]) -> None:
        fine(self._http.post("/containers/create", params={"name": name}, json=config))

    def start(self, name: str) -> None:
        fine(self._http.post(f"/containers/{name}/start"))

    def remove(self, name: str) -> None:
        """Also while it runs; one that is gone stays so. Asked again where the engine is at it already, and fails."""
        for _ in range(TRIES):
            answer = self._http.delete(f"/containers/{name}", params={"force": "true", "v": "true"})
            if answer.is_success or answer.status_code == 404:
                return
            time.sleep(0.1)
        fine(answer)

    def inspect(self, container: str) -> dict[str, Any]:
        return dict(fine(self._http.get(f"/containers/{container}/json")).json())

    def containers(self, platform: str, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Those of a platform in any state, or of one of its endpoints."""
        labels = [f"{PLATFORM}={platform}", *([f"{ENDPOINT}={endpoint}"] if endpoint else [])]
        params = {"all": "true", "filters": json.dumps({"label": labels})}
        return list(fine(self._http.get("/containers/json", params=params)).json())

    def taken(self, platform: str, endpoint: str | None = None) -> Taken:
        """By the containers of a platform, or of one of its endpoints. What ends meanwhile counts nothing."""
        own, count, beside = 0, 0, 0
        for each in self.containers(platform, endpoint):
            with contextlib.suppress(Refused, OSError):
                first = int(self.inspect(each["Id"])["State"]["Pid"])
                own += sum(sizes(family(first))) if first else 0
                beside += sum(sizes(named(each["Id"])))
                count += self._charged(each["Id"]) if first else 0
        return Taken(own, count, beside)

    def _charged(self, container: str) -> int:
        params = {"stream": "false", "one-shot": "true"}
        told = fine(self._http.get(f"/containers/{container}/stats", params=params)).json()
        return charged(told.get("memory_stats") or {})

    # Images

    def sweep(self, platform: str) -> None:
        """Removes what a platform's containers and images are left with."""
        for each in self.containers(platform):
            self.remove(each["Id"])
        params = {"all": "true", "filters": json.dumps({"label": [f"{MADE_BY}={platform}"]})}
        for _ in range(ROUNDS):
            found = fine(self._http.get("/images/json", params=params)).json()
            gone = [self._http.delete(f"/images/{each['Id']}").is_success for each in found]
            if not any(gone):
                return


def fine(answer: httpx.Response) -> httpx.Response:
    """The same. Raises Refused."""
    if answer.is_error:
        raise Refused(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text.strip()}")
    return answer


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    found = Engine()
    try:
        yield found
    finally:
        found.close()


def sizes(pids: set[int]) -> Iterator[int]:
    """PSS of each that is there."""
    for pid in pids:
        with contextlib.suppress(OSError):
            yield pss(pid)


def named(container: str) -> set[int]:
    """The host's processes whose command line names a container: its monitor, its shim."""
    found = set()
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                if container.encode() in (place / "cmdline").read_bytes():
                    found.add(int(place.name))
    return found
