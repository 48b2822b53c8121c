"""Endpoints of one service, each asleep in its own way, and a call of one that is at rest there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.engine import Engine
from bench.platform import ROOT
from bench.stock import call
from torpor import Client
from torpor.wire import EndpointState, EndpointView, State

# By endpoint: how it runs and sleeps.
RUNGS: dict[str, dict[str, Any]] = {
    "process": {"launcher": "process", "sleep": "deep"},
    "fork": {"launcher": "container", "sleep": "fork"},
    "pause": {"launcher": "container", "sleep": "pause"},
    "stop": {"launcher": "container", "sleep": "stop"},
}
REST = 1.2  # seconds at rest before a call: a replica that has answered a first call finishes its session in a second
REST_WITHIN = 60.0  # seconds from being put to sleep


@dataclass(frozen=True, slots=True)
class Wake:
    """Seconds from the connect to the answer's last byte, and its phases as the answer tells them."""

    took: float
    timing: str


def deploy(client: Client, name: str, rung: str, **settings: Any) -> None:
    folder = str(ROOT / "services" / "embedding")
    client.deploy(folder, name=name, env={"TORPOR_PRECISION": "int8"}, settings={**RUNGS[rung], **settings})


def wake(client: Client, engine: Engine, platform: str, rung: str) -> Wake:
    """The endpoint of a rung, put to sleep, seen to be at rest, and called."""
    fall_asleep(client, engine, platform, rung)
    time.sleep(REST)
    began = time.perf_counter()
    status, headers = call(client, rung)
    took = time.perf_counter() - began
    assert status == 200, f"{rung}: the call at zero was answered {status}: {client.get(rung)['last_error']}"
    assert headers["x-torpor-cold-start"] == "true", f"{rung}: the endpoint was not asleep"
    return Wake(took, headers.get("server-timing", ""))


def fall_asleep(client: Client, engine: Engine, platform: str, rung: str) -> None:
    """Returns when nothing else stays than its rung says, and the container that is made ahead is made."""
    client.sleep(rung)
    wait(lambda: at_rest(client.get(rung), rung), f"{rung} is not at rest")
    if rung == "stop":
        wait(lambda: made_ahead(engine, platform, rung), f"no container is made ahead for {rung}")


def at_rest(view: EndpointView, rung: str) -> bool:
    replicas, template = [each["state"] for each in view["replicas"]], view["template"]
    if view["state"] != EndpointState.ASLEEP or replicas != ([State.PAUSED] if rung == "pause" else []):
        return False
    return template is not None and template["state"] == "kept" if rung == "fork" else template is None


def made_ahead(engine: Engine, platform: str, endpoint: str) -> bool:
    """Whether it is all that the endpoint has: what ran before is removed."""
    return [each["State"] for each in engine.containers(platform, endpoint)] == ["created"]


def wait(there: Callable[[], bool], otherwise: str) -> None:
    """Raises TimeoutError."""
    give_up = time.perf_counter() + REST_WITHIN
    while not there():
        if time.perf_counter() > give_up:
            raise TimeoutError(f"{otherwise} within {REST_WITHIN:.0f} s")
        time.sleep(0.02)
