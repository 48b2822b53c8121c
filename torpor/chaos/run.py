"""A run: a platform with three small endpoints, callers without a pause, one fault after the other, and the account."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torpor.chaos.callers import Scene, caller, one
from torpor.chaos.faults import CAUSES, Fault, Strike
from torpor.chaos.look import alive, descriptors, processes, settle, unsettled, written
from torpor.cli.platform import down, read_address, up_detached
from torpor.client import Client
from torpor.errors import TorporError

CALLERS = 4
SETTLE_WITHIN = 30.0  # seconds
SPARE = 8  # descriptors more than before that are no leak: idle connections, files that are being written
ENDPOINTS: dict[str, dict[str, Any]] = {
    "deep": {"sleep": "deep", "idle_after": 0.3},
    "kept": {"sleep": "template", "idle_after": 0.3},
    "busy": {"sleep": "deep", "max_replicas": 2, "concurrency": 4, "memory_limit": 256 << 20},
}
COMMON = {"start_within": 20, "stop_within": 1, "drain_within": 5}


class World:
    """The platform and what can be done to it. Each fault returns when it is done; what follows is the platform's."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.data = folder / "data"
        self.mode = folder / "mode"
        self.rng = rng
        self.url, self.pid = "", 0
        self.strikes: dict[str, Strike] = {
            "a replica is killed": lambda fault: self._kill(fault, "replica"),
            "a fork-server is killed": lambda fault: self._kill(fault, "forkserver"),
            "a template is killed": lambda fault: self._kill(fault, "template"),
            "the platform is killed": self.killed,
            "a replica ends itself": lambda fault: self._tell(fault, "die"),
            "a replica answers garbage": lambda fault: self._tell(fault, "garble"),
            "a replica closes its socket": lambda fault: self._tell(fault, "hang_up"),
            "a replica is deaf to TERM": lambda fault: self._tell(fault, "deafen"),
            "a replica leaks": lambda fault: self._tell(fault, "leak", mib=300),
            "a replica forks": lambda fault: self._tell(fault, "fork", mib=1),
            "starts fail": self._failing,
            "an endpoint is put to sleep": lambda fault: self._asleep(fault, force=False),
            "an endpoint is forced to sleep": lambda fault: self._asleep(fault, force=True),
        }
        assert self.strikes.keys() == CAUSES.keys()

    def up(self) -> None:
        found = up_detached(["--port", "0"], self.data)
        self.url, self.pid = found["url"], found["pid"]

    def killed(self, fault: Fault) -> None:
        fault.endpoints = None
        before = processes(self.data)
        os.kill(self.pid, signal.SIGKILL)
        settle(lambda: ["it runs"] if alive(self.pid) else [], SETTLE_WITHIN)
        self.up()
        if orphans := [line for pid, line in before.items() if alive(pid)]:
            raise Lost(f"{len(orphans)} processes outlived their platform: {orphans}")

    def look(self) -> list[str]:
        with Client(self.url) as client:
            return unsettled(self.data, self.pid, client.list())

    def _kill(self, fault: Fault, kind: str) -> None:
        with Client(self.url) as client:
            replicas = {replica["id"] for view in client.list() for replica in view["replicas"]}
        kinds: dict[str, list[tuple[int, str]]] = {"replica": [], "forkserver": [], "template": []}
        for name, pid in written(self.data).items():
            is_server = name.startswith("forkserver-")
            kinds["forkserver" if is_server else "replica" if name in replicas else "template"].append((pid, name))
        if found := sorted(kinds[kind]):
            pid, name = self.rng.choice(found)
            fault.on(name.rsplit("-", 2)[0])
            if kind == "forkserver":
                fault.endpoints = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _tell(self, fault: Fault, method: str, **arguments: Any) -> None:
        endpoint = fault.on(self.rng.choice(list(ENDPOINTS)))
        with Client(self.url, answer_within=10) as client, contextlib.suppress(TorporError):
            client.endpoint(endpoint).call(method, **arguments)

    def _failing(self, fault: Fault) -> None:
        fault.endpoints = None
        self.mode.write_text("fail")
        time.sleep(0.5)
        self.mode.unlink()

    def _asleep(self, fault: Fault, force: bool) -> None:
        endpoint = fault.on(self.rng.choice(list(ENDPOINTS)))
        with Client(self.url) as client, contextlib.suppress(TorporError):
            client.sleep(endpoint, force=force)


class Lost(Exception):
    """What a fault found lost."""


@contextlib.contextmanager
def world(rng: random.Random) -> Iterator[World]:
    """A platform in a folder of its own with the endpoints deployed; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="torpor-chaos-") as name, surroundings(Path(name)):
        made = World(Path(name), rng)
        made.up()
        try:
            deploy(made)
            yield made
        finally:
            if (found := read_address(made.data)) is not None and alive(found["pid"]):
                down(made.data)


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """The environment of the platform: its own folders, and nothing of the owner's settings."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("TORPOR_")]:
        del os.environ[name]
    (folder / "bentoml").mkdir()
    os.environ |= {
        "TORPOR_DATA": str(folder / "data"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def deploy(made: World) -> None:
    source = made.mode.parent / "victim"
    source.mkdir()
    (source / "service.py").write_text(Path(__file__).with_name("victim.py").read_text())
    with Client(made.url) as client:
        for name, settings in ENDPOINTS.items():
            client.deploy(source, name, env={"VICTIM_MODE": str(made.mode)}, settings=COMMON | settings)


def run(within: float, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """`{"calls", "faults", "explained", "lost": [sentence], "seed", "happened": {fault: times}}`."""
    rng = random.Random(seed)
    with world(rng) as made:
        quiet(made)
        before = descriptors(made.pid)
        scene = Scene(made.url, tuple(ENDPOINTS), time.monotonic() + within)
        callers = [threading.Thread(target=caller, args=(scene, random.Random(rng.random()))) for _ in range(CALLERS)]
        for each in callers:
            each.start()
        happened: dict[str, int] = {}
        while time.monotonic() < scene.ends:
            name = rng.choice(list(made.strikes))
            tell(f"{name}")
            strike(made, scene, name)
            happened[name] = happened.get(name, 0) + 1
            time.sleep(rng.uniform(0.1, 1.5))
        for each in callers:
            each.join()
        scene.lost += account(made, before)
        down(made.data)
        scene.lost += [f"{name}.pid is left of a platform that was told to end" for name in written(made.data)]
    scene.lost += [f"after the end runs {line}" for line in settle(lambda: list(processes(made.data).values()), 10)]
    return {
        "calls": scene.counts["calls"],
        "faults": sum(happened.values()),
        "explained": scene.counts["explained"],
        "lost": scene.lost,
        "seed": seed,
        "happened": happened,
    }


def strike(made: World, scene: Scene, name: str) -> None:
    """One fault; while it lasts, and a while after, it explains what callers of its endpoints meet."""
    fault = Fault(name, time.monotonic())
    scene.faults.append(fault)
    try:
        made.strikes[name](fault)
    except (Lost, TorporError) as error:
        scene.lose(f"{name}: {error}")
    scene.url = made.url
    fault.until = time.monotonic()


def quiet(made: World) -> list[str]:
    """Every endpoint has answered, and then slept: what is left then is what the platform holds at rest."""
    wrong: list[str] = []
    rng = random.Random(0)
    for name in ENDPOINTS:
        give_up = time.monotonic() + SETTLE_WITHIN
        while (fault := one(made.url, name, "hello", rng)) is not None and time.monotonic() < give_up:
            time.sleep(0.1)
        if fault is not None:
            wrong.append(f"endpoint {name} does not answer any more: {fault}")
        with Client(made.url) as client, contextlib.suppress(TorporError):
            client.sleep(name, force=True)
    return wrong


def account(made: World, before: int) -> list[str]:
    """What is lost at the end, when nobody calls."""
    wrong = settle(made.look, SETTLE_WITHIN)
    with Client(made.url) as client:
        wrong += [f"endpoint {name} is gone" for name in ENDPOINTS.keys() - {view["name"] for view in client.list()}]
    wrong += quiet(made)
    wrong += settle(made.look, SETTLE_WITHIN)
    most = before + SPARE
    grown = settle(lambda: [f"{descriptors(made.pid)} descriptors"] if descriptors(made.pid) > most else [], 10)
    return wrong + [f"the router holds {each}, at its start {before}" for each in grown]
