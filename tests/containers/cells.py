"""Endpoints that run what their caller sends, each in a container, on a platform of their own."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from tests.containers.engine import asked, remove_labelled
from tests.system import handmade
from tests.system.running import Running, running

API = "/torpor/v1"
PATIENCE = 60.0  # seconds until something that should happen is a failure
MEMORY = 6 << 30  # bytes that all endpoints of one may take together
# A start begins with what the endpoint's own folder says, so that a test can have it go wrong.
SERVICE = """
import json, os
from pathlib import Path
import bentoml

ORDER = Path(os.environ["BENTOML_RESULT_STORE"]).with_name("order")

@bentoml.service
class Cell:
    def __init__(self) -> None:
        if ORDER.exists():
            exec(ORDER.read_text(), {})

    @bentoml.api
    def run(self, code: str) -> str:
        told = {}
        exec(code, told)
        return json.dumps(told.get("out"))
"""


@dataclass(frozen=True)
class Cells:
    """A platform on an engine, and its callers."""

    platform: Running
    engine: Path
    image: str
    callers: ThreadPoolExecutor

    @property
    def url(self) -> str:
        return self.platform.url

    @property
    def data(self) -> Path:
        return self.platform.data

    def deploy(self, name: str, *secrets: str, **settings: Any) -> dict[str, Any]:
        """The endpoint's view, once it is live. Its image is the tests' own, where the settings name no other."""
        if settings.get("launcher") != "process":
            settings = {"image": self.image} | settings
        body = {"name": name, "bento": "cell:1", "settings": settings, "secrets": secrets}
        told = list(handmade.events(self.url, body))
        assert told[-1]["event"] == "deployed", told
        return dict(told[-1]["endpoint"])

    def call(self, endpoint: str, code: str) -> httpx.Response:
        code = textwrap.dedent(code)
        return httpx.post(f"{self.url}/endpoints/{endpoint}/run", json={"code": code}, timeout=PATIENCE)

    def calling(self, endpoint: str, code: str) -> Future[httpx.Response]:
        """The call of somebody else, meanwhile."""
        return self.callers.submit(self.call, endpoint, code)

    def inside(self, endpoint: str, code: str) -> Any:
        """What code in a replica of the endpoint leaves in `out`."""
        answer = self.call(endpoint, code)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def view(self, endpoint: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}{API}/endpoints/{endpoint}", timeout=PATIENCE).json())

    def sleep(self, endpoint: str) -> None:
        httpx.post(f"{self.url}{API}/endpoints/{endpoint}/sleep?force=true", timeout=PATIENCE).raise_for_status()

    def events(self, endpoint: str) -> list[dict[str, Any]]:
        """Its history, the oldest first."""
        told = httpx.get(f"{self.url}{API}/endpoints/{endpoint}/events", timeout=PATIENCE).json()["events"]
        return sorted(told, key=lambda each: each["at"])

    def busy(self, endpoint: str) -> None:
        """Returns once a call runs there."""
        until(lambda: any(each["in_flight"] for each in self.view(endpoint)["replicas"]))

    def order(self, endpoint: str, code: str) -> None:
        """How its next starts go."""
        (self.data / "endpoints" / endpoint / "order").write_text(code)

    def containers(self, endpoint: str = "") -> list[dict[str, Any]]:
        """What of this platform's the engine has."""
        return containers(self.engine, self.label, endpoint)

    @property
    def label(self) -> str:
        return f"torpor.platform={(self.data / 'platform').read_text().strip()}"

    def up_again(self) -> Cells:
        """Started as its owner would, after it was killed."""
        from torpor.cli.platform import read_address

        self.platform.told("up", "--detach", "--port", "0", *flags(self.data.parent))
        found = read_address(self.data)
        assert found is not None
        return replace(self, platform=replace(self.platform, url=found["url"], pid=found["pid"]))


def containers(engine: Path, label: str, endpoint: str = "") -> list[dict[str, Any]]:
    found = asked(engine, "GET", "/containers/json", params={"all": "true", "filters": f'{{"label": ["{label}"]}}'})
    return [each for each in found.json() if endpoint in ("", each["Labels"]["torpor.endpoint"])]


def flags(folder: Path) -> list[str]:
    return ["--launcher", "container", "--config", str(folder / "torpor.toml")]


@contextmanager
def cells(folder: Path, engine: Path, image: str) -> Iterator[Cells]:
    """A platform without endpoints, which asks the engine at this socket; nothing of its containers is left."""
    (folder / "torpor.toml").write_text(f"engine = '{engine}'\nmemory = {MEMORY}\n")
    with ThreadPoolExecutor(8) as callers, running(folder, *flags(folder)) as platform:
        made = Cells(platform, engine, image, callers)
        try:
            handmade.upload(platform.url, "cell", handmade.bento("cell", SERVICE, "service:Cell"))
            yield made
        finally:
            left = made.label
    try:
        assert containers(engine, left) == [], "what is there after `torpor down`"
    finally:
        remove_labelled(engine, left)


def until(found: Callable[[], Any], within: float = PATIENCE) -> Any:
    """What `found` gives as soon as it is something."""
    give_up = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)
    return value
