"""Eight models of which three fit into memory, called at random: in turns, beside the longest unused alone."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.platform import conditions, started
from bench.table import Row
from torpor import Client

MB = 1 << 20
MODELS, FIT = 8, 3
SIZE = 150  # MB of one model's weights
LOAD = 0.5  # seconds to load them
RATE = 12.0  # calls a second, over all models
SECONDS = 25.0
WITHIN = 120.0  # seconds for one call
MEMORY = (200 + FIT * (SIZE + 30) + SIZE // 2) * MB  # the platform, three replicas, and half a model to spare

SERVICE = f"""
import time

import bentoml


@bentoml.service
class Heavy:
    def __init__(self) -> None:
        time.sleep({LOAD})
        self.weights = bytearray(b"w") * ({SIZE} << 20)

    @bentoml.api
    def touch(self) -> int:
        time.sleep(0.02)
        return len(self.weights)
"""


class Run:
    """What one policy did: seconds from call to answer, by model, and the starts that it took."""

    def __init__(self) -> None:
        self.waits: dict[str, list[float]] = {}
        self.failed = 0
        self.starts = 0

    @property
    def loading(self) -> float:
        """Share of the places' time that was spent loading."""
        return self.starts * LOAD / (FIT * SECONDS)

    @property
    def p99(self) -> float:
        every = sorted(wait for waits in self.waits.values() for wait in waits)
        return every[int(0.99 * (len(every) - 1))]

    @property
    def fairness(self) -> float:
        """Jain's index of the models' mean waits: 1 when all wait alike, 1/8 when one waits for all."""
        means = [statistics.mean(waits) for waits in self.waits.values()]
        return float(sum(means) ** 2 / (len(means) * sum(mean**2 for mean in means)))


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    found: dict[str, list[Run]] = {"turns": [], "lru": []}
    with tempfile.TemporaryDirectory(prefix="torpor-swap-") as folder:
        (Path(folder) / "service.py").write_text(SERVICE)
        for turn in range(max(2, options.rounds // 4)):
            for policy, runs in found.items():
                print(f"round {turn + 1}: {policy}", file=sys.stderr)
                with started(TORPOR_EVICTION=policy, TORPOR_MEMORY=str(MEMORY)) as client:
                    runs.append(one(client, folder, turn))
    ours, lru = (middle(found[policy]) for policy in ("turns", "lru"))
    failed = sum(each.failed for runs in found.values() for each in runs)
    said = f"{failed} calls failed"
    rows = [
        Row.of(
            "share of time spent loading", f"{ours.loading:.2f}", f"{lru.loading:.2f}", lru.loading / ours.loading, 1.0
        ),
        Row.of("p99 from call to answer", f"{ours.p99:.1f} s", f"{lru.p99:.1f} s", lru.p99 / ours.p99, 1.0, said),
        Row.of("fairness (Jain)", f"{ours.fairness:.3f}", f"{lru.fairness:.3f}", ours.fairness / lru.fairness, 0.95),
    ]
    return {**conditions(), "models": MODELS, "that fit": FIT, "load": f"{LOAD} s", "calls": f"{RATE:g}/s"}, rows


def middle(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda each: each.p99)[len(runs) // 2]


def one(client: Client, folder: str, seed: int) -> Run:
    names = [f"model-{k}" for k in range(MODELS)]
    for name in names:
        client.deploy(folder, name=name, settings={"sleep": "deep", "queue_within": WITHIN})
        client.sleep(name)
    before = sum(int(view["cold_starts"]) for view in client.list())
    out = asyncio.run(load(client.url, names, random.Random(seed)))
    out.starts = sum(int(view["cold_starts"]) for view in client.list()) - before
    return out


async def load(url: str, names: list[str], rng: random.Random) -> Run:
    """Calls at random instants of random models, whether earlier ones were answered or not."""
    out = Run()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=WITHIN, limits=limits) as http, asyncio.TaskGroup() as tasks:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            tasks.create_task(call(http, rng.choice(names), out))
            await asyncio.sleep(rng.expovariate(RATE))
    return out


async def call(http: httpx.AsyncClient, name: str, out: Run) -> None:
    begun = time.perf_counter()
    try:
        answer = await http.post(f"/endpoints/{name}/touch", json={})
        out.failed += answer.status_code != 200
    except httpx.HTTPError:
        out.failed += 1
    out.waits.setdefault(name, []).append(time.perf_counter() - begun)
