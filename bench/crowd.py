"""Twenty endpoints in containers, called at random for a minute, in less memory than they would all take."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from bench.engine import Engine, sizes
from bench.memory import MB, family, mb
from bench.rungs import deploy
from bench.stock import BODY
from bench.table import Row
from torpor import Client
from torpor.wire import COLD_START, SERVER_TIMING

ENDPOINTS = 20
SLEEPS = ("fork", "pause", "stop")  # in turn
RATE = 1.5  # calls a second, over all
IDLE_AFTER = 2.0  # seconds: most calls find their endpoint asleep
MEMORY = 1600 * MB  # of all awake, some 2.7 GB, and all asleep as they are told, 1.6 GB, it holds a part
EVERY = 0.5  # seconds between two looks at the memory
WITHIN = 120.0  # seconds for one call


@dataclass
class Seen:
    """Seconds of the wakes by rung; answers that were no 200, and what else went wrong; bytes at their highest."""

    wakes: dict[str, list[float]] = field(default_factory=lambda: {rung: [] for rung in SLEEPS})
    resumed: int = 0
    calls: int = 0
    warm: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    highest: int = 0  # PSS of the router and of all that runs in its containers
    counted: int = 0  # by torpor's own count


def deployed(client: Client) -> dict[str, str]:
    """Rungs by endpoint."""
    rungs = {f"{rung}-{k:02d}": rung for k, rung in ((k, SLEEPS[k % len(SLEEPS)]) for k in range(ENDPOINTS))}
    for k, (name, rung) in enumerate(rungs.items()):
        print(f"deploy {k + 1} of {ENDPOINTS}", file=sys.stderr)
        deploy(client, name, rung, idle_after=IDLE_AFTER)
    return rungs


def crowd(client: Client, engine: Engine, platform: str, seconds: float) -> list[Row]:
    """`client`: of a platform that was started with MEMORY."""
    rungs = deployed(client)
    print(f"calls at random for {seconds:.0f} s", file=sys.stderr)
    seen = asyncio.run(load(client, engine, platform, rungs, seconds))
    return rows(seen)


async def load(client: Client, engine: Engine, platform: str, rungs: dict[str, str], seconds: float) -> Seen:
    """Calls at random instants of random endpoints, whether earlier ones were answered or not."""
    seen, rng, names = Seen(), random.Random(0), list(rungs)
    router = int(client.status()["pid"])
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=client.url, timeout=WITHIN, limits=limits) as http:
        looking = asyncio.create_task(look(http, engine, platform, router, seen))
        try:
            async with asyncio.TaskGroup() as calls:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    name = rng.choice(names)
                    calls.create_task(called(http, name, rungs[name], seen))
                    await asyncio.sleep(rng.expovariate(RATE))
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    return seen


async def called(http: httpx.AsyncClient, name: str, rung: str, seen: Seen) -> None:
    began = time.perf_counter()
    try:
        headers = {"Content-Type": "application/json"}
        answer = await http.post(f"/endpoints/{name}/embed", content=BODY, headers=headers)
    except httpx.HTTPError as error:
        seen.failures[f"{name}: {type(error).__name__}"] += 1
        return
    finally:
        seen.calls += 1
    if answer.status_code != 200:
        seen.failures[f"{name}: {answer.status_code} {answer.text.partition(chr(10))[0][:120]}"] += 1
    elif answer.headers.get(COLD_START) == "true":
        seen.wakes[rung].append(time.perf_counter() - began)
        seen.resumed += "resume" in answer.headers.get(SERVER_TIMING, "")
    else:
        seen.warm += 1


async def look(http: httpx.AsyncClient, engine: Engine, platform: str, router: int, seen: Seen) -> None:
    """What all take, again and again, in a thread: the calls go on."""
    while True:
        taken = await asyncio.to_thread(everything, engine, platform, router)
        seen.highest = max(seen.highest, taken)
        counted = (await http.get("/metrics")).text
        seen.counted = max(seen.counted, int(total(counted)))
        await asyncio.sleep(EVERY)


def everything(engine: Engine, platform: str, router: int) -> int:
    return sum(sizes(family(router))) + engine.taken(platform).pss


def total(metrics: str) -> float:
    """Bytes that the router counts, by whatever takes them."""
    lines = [line for line in metrics.splitlines() if line.startswith("torpor_memory_bytes{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def rows(seen: Seen) -> list[Row]:
    lost = sum(seen.failures.values())
    said = "; ".join(f"{count} x {what}" for what, count in seen.failures.most_common(5))
    calls = f"{seen.calls} calls, {lost} failed"
    woken = f"{sum(map(len, seen.wakes.values()))} woke one, {seen.resumed} by resuming; {seen.warm} found it awake"
    highest = f"torpor counts {mb(seen.counted)}"
    return [
        Row(f"{ENDPOINTS} endpoints at random", calls, "", said or woken, None, None, not lost and seen.calls > 0),
        Row.of(
            "their memory at its highest", mb(seen.highest), mb(MEMORY), MEMORY / max(1, seen.highest), 1.0, highest
        ),
        *(wakes(rung, seen.wakes[rung]) for rung in SLEEPS),
    ]


def wakes(rung: str, took: Sequence[float]) -> Row:
    if not took:
        return Row(f"wakes of sleep = {rung}", "none", "", "", None, None, False)
    p50, p99 = statistics.median(took), sorted(took)[int(0.99 * (len(took) - 1))]
    said = f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
    return Row(f"wakes of sleep = {rung}", said, "", f"{len(took)} wakes", None, None, True)
