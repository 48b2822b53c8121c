"""Victims, their callers, and the one check that every test of a fault ends with."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.system import handmade
from tests.system.running import Running
from torpor.chaos.look import settle, unsettled, written
from torpor.wire import EndpointView

API = "/torpor/v1"
SERVICE = Path(__file__).parents[3] / "torpor" / "chaos" / "victim.py"
PATIENCE = 60.0  # seconds until something that should happen is a failure
SETTLED_WITHIN = 20.0  # seconds until what a fault has left must be gone
# endpoint -> settings: one sleeps without a process, one keeps a template
ENDPOINTS: dict[str, dict[str, Any]] = {
    "deep": {"sleep": "deep", "stop_within": 1, "drain_within": 20, "start_within": 30},
    "kept": {"sleep": "template", "stop_within": 1, "drain_within": 20},
}


@dataclass(frozen=True)
class Victims:
    """A platform with the victims deployed. `url` changes when it is started again."""

    url: str
    pid: int
    data: Path
    mode: Path  # what is written into it says how the next starts of `deep` go
    callers: ThreadPoolExecutor

    def call(self, endpoint: str, method: str, **arguments: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/endpoints/{endpoint}/{method}", json=arguments, timeout=PATIENCE)

    def calling(self, endpoint: str, method: str, **arguments: Any) -> Future[httpx.Response]:
        """The call of somebody else, meanwhile."""
        return self.callers.submit(self.call, endpoint, method, **arguments)

    def answered(self, endpoint: str) -> httpx.Response:
        """A call's answer, once the endpoint is no longer put off after a start that has failed."""
        answer: httpx.Response = until(lambda: again(self.call(endpoint, "hello", name=endpoint)))
        return answer

    def view(self, endpoint: str) -> EndpointView:
        found: EndpointView = httpx.get(f"{self.url}{API}/endpoints/{endpoint}", timeout=PATIENCE).json()
        return found

    def views(self) -> list[EndpointView]:
        found: list[EndpointView] = httpx.get(f"{self.url}{API}/endpoints", timeout=PATIENCE).json()["endpoints"]
        return found

    def sleep(self, endpoint: str) -> httpx.Response:
        return httpx.post(f"{self.url}{API}/endpoints/{endpoint}/sleep?force=true", timeout=PATIENCE)

    def replica(self, endpoint: str, state: str = "ready") -> int:
        """The pid of the endpoint's one replica, once it is in this state."""

        def found() -> int | None:
            replicas = self.view(endpoint)["replicas"]
            return next((each["pid"] for each in replicas if each["state"] == state and each["pid"]), None)

        return int(until(found))

    def busy(self, endpoint: str) -> int:
        """The pid of its replica, once a call runs there."""

        def found() -> int | None:
            replicas = self.view(endpoint)["replicas"]
            return next((each["pid"] for each in replicas if each["in_flight"] and each["pid"]), None)

        return int(until(found))


def until(found: Callable[[], Any], within: float = PATIENCE) -> Any:
    """What `found` gives as soon as it is something."""
    give_up = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)
    return value


def deploy(platform: Running, mode: Path, callers: ThreadPoolExecutor, **more: Any) -> Victims:
    """Every victim on a platform; `more` are settings of all of them."""
    handmade.upload(platform.url, "victim", handmade.bento("victim", SERVICE.read_text(), "service:Victim"))
    for name, settings in ENDPOINTS.items():
        body = {
            "name": name,
            "bento": "victim:1",
            "settings": settings | more,
            "env": {"VICTIM_MODE": f"{mode}-{name}"},
        }
        told = list(handmade.events(platform.url, body))
        assert told[-1]["event"] == "deployed", told
    return Victims(platform.url, platform.pid, platform.data, mode.with_name(f"{mode.name}-deep"), callers)


def nothing_is_left(victims: Victims) -> None:
    """No process, socket or pid file of nobody, no caller who waits, no lease; every endpoint there, and it answers."""
    victims.mode.unlink(missing_ok=True)
    wrong = settle(lambda: unsettled(victims.data, victims.pid, victims.views()), SETTLED_WITHIN)
    assert wrong == [], wrong
    assert {view["name"] for view in victims.views()} == ENDPOINTS.keys()
    for name in ENDPOINTS:
        answer = victims.answered(name)
        assert answer.text == f"hello {name}"
    wrong = settle(lambda: unsettled(victims.data, victims.pid, victims.views()), SETTLED_WITHIN)
    assert wrong == [], wrong


def again(answer: httpx.Response) -> httpx.Response | None:
    """None while the endpoint is put off after a start that has failed, which is no loss: it says for how long."""
    if answer.status_code == 503 and answer.json()["code"] in ("start_failed", "start_timeout"):
        return None
    assert answer.status_code == 200, answer.text
    return answer


def fork_server(victims: Victims) -> int:
    """The pid of the one that all victims share."""
    [pid] = [pid for name, pid in written(victims.data).items() if name.startswith("forkserver-")]
    return pid
