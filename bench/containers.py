"""Calls of containers that sleep: beside the engine's floor and the process launcher; memory; twenty at random.

Peers of the calls at zero, in the same run: of `fork`, the process launcher's deep cold start; of `pause`, 30 ms; of
`stop`, `podman run` of the same image with a script that loads the same service and answers one call (`floors.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from bench.crowd import MEMORY, crowd
from bench.engine import Engine, Taken, engine
from bench.floors import Floor, Floors
from bench.memory import mb
from bench.platform import conditions, exported_model, started
from bench.rungs import RUNGS, Wake, deploy, fall_asleep, wake
from bench.stock import call
from bench.table import Row
from torpor import Client

ROUNDS = 5  # at most
CALLS = 3  # at zero, of each rung in each round
FORK, STOP = 1.5, 1.3  # times the peer, at most
PAUSE = 0.03  # seconds
SETTLE = 3.0  # seconds from a call until memory is measured: the session that answered first is replaced
AWAKE = 20  # calls of what is measured awake
Timed = TypeVar("Timed", Wake, Floor)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    rounds = min(options.rounds, ROUNDS)
    with engine() as found, tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        exported_model()
        data = Path(folder)
        try:
            with started(data) as client:
                rows = measured(client, found, data, rounds)
            with started(data, TORPOR_MEMORY=str(MEMORY)) as client:
                for name in RUNGS:
                    client.delete(name)
                rows += crowd(client, found, identity(data), options.minutes * 60)
        finally:
            if (data / "platform").exists():
                found.sweep(identity(data))
        told = {"engine": f"{found.name} {found.version}", "rounds": rounds, "calls at zero a round": CALLS}
    return {**conditions(), **told}, rows


def measured(client: Client, found: Engine, data: Path, rounds: int) -> list[Row]:
    build = built(client)
    platform = identity(data)
    fall_asleep(client, found, platform, "stop")
    [like] = found.containers(platform, "stop")
    floors = Floors(found, found.inspect(like["Id"]), source(found.inspect(like["Id"])))
    wakes: dict[str, list[Wake]] = {rung: [] for rung in RUNGS}
    byte: list[Floor] = []
    api: list[Floor] = []
    loaded: list[Floor] = []
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
        for _ in range(CALLS):
            byte.append(floors.run_byte())
            api.append(floors.api_byte())
            loaded.append(floors.run_loaded())
            for rung in RUNGS:
                wakes[rung].append(wake(client, found, platform, rung))
    return [
        Row("build of the image, and a first start", seconds(build), "", "", None, None, True),
        *calls(wakes, byte, api, loaded),
        *memory(client, found, platform),
    ]


def built(client: Client) -> float:
    """Seconds of the first deploy in a container; the others find its image."""
    print("building the image", file=sys.stderr)
    deploy(client, "process", "process")
    began = time.perf_counter()
    deploy(client, "stop", "stop")
    took = time.perf_counter() - began
    deploy(client, "fork", "fork")
    deploy(client, "pause", "pause")
    return took


def identity(data: Path) -> str:
    """Of the platform, on its containers and images."""
    return (data / "platform").read_text().strip()


def source(like: dict[str, Any]) -> str:
    """The folder of the service's module, in a container of torpor's."""
    places = [Path(each["Destination"]) for each in like["Mounts"]]
    [bento] = [place for place in places if (place / "bento.yaml").exists()]  # its own place is the host's
    return str(bento / "src")


# Calls at zero


def calls(wakes: dict[str, list[Wake]], byte: list[Floor], api: list[Floor], loaded: list[Floor]) -> list[Row]:
    floor, made, whole = middle(byte), middle(api), middle(loaded)
    fork, pause, stop, process = (middle(wakes[rung]) for rung in ("fork", "pause", "stop", "process"))
    return [
        Row("floor: the engine's `run`, one byte", "", ms(floor.took), "", None, None, True),
        Row("floor: its API, one byte", "", ms(made.took), phases(made), None, None, True),
        Row("floor and load: `run`, the service, one call", "", ms(whole.took), phases(whole), None, None, True),
        Row("process launcher, sleep = deep", ms(process.took), "", process.timing, None, None, True),
        against("fork", fork, process.took, FORK),
        Row.of("call at zero, sleep = pause", ms(pause.took), ms(PAUSE), PAUSE / pause.took, 1.0, pause.timing),
        against("stop", stop, whole.took, STOP),
    ]


def against(rung: str, ours: Wake, peer: float, times: float) -> Row:
    """Met where ours takes at most so many times the peer's."""
    name = f"call at zero, sleep = {rung}"
    return Row.of(name, ms(ours.took), ms(peer), peer / ours.took, round(1 / times, 3), ours.timing)


def middle(seen: Iterable[Timed]) -> Timed:
    """That of the median time."""
    every = sorted(seen, key=lambda each: each.took)
    return every[len(every) // 2]


# Memory


def memory(client: Client, found: Engine, platform: str) -> list[Row]:
    """The rungs one by one, everything else asleep at stop or ended."""
    awake = {}
    for rung in RUNGS:
        for _ in range(AWAKE):
            assert call(client, rung)[0] == 200
    time.sleep(SETTLE)
    for rung in ("stop", "fork"):
        awake[rung] = found.taken(platform, rung)
    [replica] = client.get("process")["replicas"]
    peer = int(replica["memory"] or 0)
    asleep = {}
    for rung in ("fork", "pause", "stop"):
        fall_asleep(client, found, platform, rung)
    time.sleep(SETTLE)
    for rung in ("fork", "pause", "stop"):
        asleep[rung] = found.taken(platform, rung)
    nothing = asleep["stop"]
    return [
        takes("awake, in a container of its own", awake["stop"], peer),
        takes("awake, forked in its endpoint's container", awake["fork"], peer),
        takes("asleep, sleep = fork", asleep["fork"]),
        takes("asleep, sleep = pause", asleep["pause"]),
        takes("asleep, sleep = stop, and a container made ahead", nothing, met=nothing.pss == 0),
    ]


def takes(name: str, taken: Taken, peer: int | None = None, met: bool = True) -> Row:
    """`peer`: a replica of the process launcher."""
    said = f"the engine counts {mb(taken.charged)}, and beside {mb(taken.beside)}"
    return Row(f"PSS {name}", mb(taken.pss), "" if peer is None else mb(peer), said, None, None, met)


def phases(floor: Floor) -> str:
    return ", ".join(f"{name} {ms(took)}" for name, took in floor.phases.items())


def ms(took: float) -> str:
    return f"{took * 1000:.0f} ms"


def seconds(took: float) -> str:
    return f"{took:.1f} s"
