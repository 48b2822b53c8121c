"""Eight models of which three fit into memory, called at random: in batches, beside the longest unused alone."""

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
from torpor.wire import API

MB = 1 << 20
MODELS, FIT = 8, 3
SIZE = 150  # MB of one model's weights
LOAD = 0.5  # seconds to load them
RATE = 12.0  # calls a second, over all models
SECONDS = 10.0
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
    """What one side did: seconds from call to answer, by model, and the starts that it took."""

    def __init__(self) -> None:
        self.waits: dict[str, list[float]] = {}
        self.failed = 0
        self.starts = 0

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
    ours: list[Run] = []
    theirs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="torpor-swap-") as folder:
        (Path(folder) / "service.py").write_text(SERVICE)
        for turn in range(max(1, options.rounds // 4)):
            print(f"round {turn + 1}: torpor", file=sys.stderr)
            with started(TORPOR_MEMORY=str(MEMORY)) as client:
                ours.append(one(client, folder, turn, Straight))
            print(f"round {turn + 1}: the longest unused alone", file=sys.stderr)
            with started() as client:
                theirs.append(one(client, folder, turn, InOrder))
    mine, lru = middle(ours), middle(theirs)
    failed = f"failed: {sum(each.failed for each in ours)}, peer {sum(each.failed for each in theirs)}"
    rows = [
        Row.of("loads, for the same calls", f"{mine.starts}", f"{lru.starts}", lru.starts / mine.starts, 1.0, failed),
        Row.of("p99 from call to answer", f"{mine.p99:.1f} s", f"{lru.p99:.1f} s", lru.p99 / mine.p99, 1.0),
        Row.of("fairness (Jain)", f"{mine.fairness:.3f}", f"{lru.fairness:.3f}", mine.fairness / lru.fairness, 0.95),
    ]
    said = "calls in their order, each waiting for its model; the longest unused goes"
    return {
        **conditions(),
        "models": MODELS,
        "that fit": FIT,
        "load": f"{LOAD} s",
        "calls": f"{RATE:g}/s",
        "peer": said,
    }, rows


def middle(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda each: each.p99)[len(runs) // 2]


def one(client: Client, folder: str, seed: int, road: type[Straight]) -> Run:
    names = [f"model-{k}" for k in range(MODELS)]
    for name in names:
        client.deploy(folder, name=name, settings={"sleep": "deep", "queue_within": WITHIN})
        client.sleep(name)
    out = asyncio.run(load(client.url, names, random.Random(seed), road))
    # A wake counts as a cold start too: each is one load.
    out.starts = sum(int(view["cold_starts"]) for view in client.list())
    return out


async def load(url: str, names: list[str], rng: random.Random, road: type[Straight]) -> Run:
    """Calls at random instants of random models, whether earlier ones were answered or not."""
    out = Run()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=WITHIN, limits=limits) as http, asyncio.TaskGroup() as tasks:
        way = road(http)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            tasks.create_task(call(way, rng.choice(names), out))
            await asyncio.sleep(rng.expovariate(RATE))
    return out


async def call(way: Straight, name: str, out: Run) -> None:
    begun = time.perf_counter()
    try:
        out.failed += not await way.call(name)
    except httpx.HTTPError:
        out.failed += 1
    out.waits.setdefault(name, []).append(time.perf_counter() - begun)


class Straight:
    """Every call goes to torpor at once, which finds the memory for it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, name: str) -> bool:
        answer = await self._http.post(f"/endpoints/{name}/touch", json={})
        return answer.status_code == 200


class InOrder(Straight):
    """What others do: calls are taken in their order, and one whose model is not loaded waits until the longest unused
    has gone and its own is there, with all that come after it.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__(http)
        self._turn = asyncio.Lock()
        self._loaded: dict[str, int] = {}  # model -> calls that run, the longest unused first

    async def call(self, name: str) -> bool:
        async with self._turn:  # asyncio's lock is fair
            if name not in self._loaded:
                if len(self._loaded) >= FIT:
                    await self._evict()
                await self._http.post(f"{API}/endpoints/{name}/wake")
            self._loaded[name] = self._loaded.pop(name, 0) + 1
        try:
            return await super().call(name)
        finally:
            self._loaded[name] -= 1

    async def _evict(self) -> None:
        while True:
            for name, running in self._loaded.items():
                if not running:
                    await self._http.post(f"{API}/endpoints/{name}/sleep")
                    del self._loaded[name]
                    return
            await asyncio.sleep(0.002)
