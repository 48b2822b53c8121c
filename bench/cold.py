"""A call at zero replicas, beside the start of `bentoml serve` on the same service to its first answer."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.platform import ROOT, conditions, exported_model, started
from bench.stock import call, first_answer, serving
from bench.table import Row
from torpor import Client

# (sleep, precision): how many times faster than the start of `bentoml serve`.
GOALS = {("deep", "int8"): 40.0, ("deep", "fp32"): 30.0, ("template", "int8"): 250.0, ("template", "fp32"): None}
CALLS = 3  # cold calls a round, of each kind
CALLERS = 50
REST = 0.6  # seconds asleep before a cold call


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    exported_model()
    ours: dict[tuple[str, str], list[tuple[float, str]]] = {kind: [] for kind in GOALS}
    theirs: dict[str, list[float]] = {"int8": [], "fp32": []}
    with started() as client:
        for sleep, precision in GOALS:
            client.deploy(
                str(ROOT / "services" / "embedding"),
                name=f"{sleep}-{precision}",
                env={"TORPOR_PRECISION": precision},
                settings={"sleep": sleep},
            )
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
            for kind in GOALS:
                ours[kind] += [cold_call(client, *kind) for _ in range(CALLS)]
            for precision in theirs:
                theirs[precision].append(serve_once(precision))
        rows = [row(kind, ours[kind], theirs[kind[1]], goal) for kind, goal in GOALS.items()]
        rows.append(crowd(client, "deep-int8"))
    return {**conditions(), "rounds": options.rounds, "cold calls a round": CALLS}, rows


def row(kind: tuple[str, str], ours: list[tuple[float, str]], theirs: list[float], goal: float | None) -> Row:
    took, timing = sorted(ours)[len(ours) // 2]
    peer = statistics.median(theirs)
    name = f"cold start, MiniLM {kind[1]}, {kind[0]} sleep"
    if goal is None:
        return Row(name, f"{took * 1000:.0f} ms", f"{peer * 1000:.0f} ms", timing, round(peer / took, 2), None, True)
    return Row.of(name, f"{took * 1000:.0f} ms", f"{peer * 1000:.0f} ms", peer / took, goal, timing)


def cold_call(client: Client, sleep: str, precision: str) -> tuple[float, str]:
    """Seconds from the connect to the last byte, and the answer's phases."""
    endpoint = f"{sleep}-{precision}"
    fall_asleep(client, endpoint, sleep == "template")
    begun = time.perf_counter()
    status, headers = call(client, endpoint)
    took = time.perf_counter() - begun
    assert status == 200, f"the cold call was answered {status}"
    assert headers["x-torpor-cold-start"] == "true", "the endpoint was not asleep"
    return took, headers.get("server-timing", "")


def fall_asleep(client: Client, endpoint: str, template: bool) -> None:
    """And for so long that the fork-server is at rest too."""
    view = client.sleep(endpoint)
    time.sleep(REST)
    for _ in range(500):
        if not template or (view["template"] and view["template"]["state"] == "kept"):
            return
        time.sleep(0.02)
        view = client.get(endpoint)
    raise TimeoutError(f"{endpoint} keeps no template: {view['no_template']}")


def serve_once(precision: str) -> float:
    """Seconds from the exec of `bentoml serve` to the last byte of its first answer."""
    begun = time.perf_counter()
    with serving(precision) as (_, port):
        first_answer(port)
        return time.perf_counter() - begun


def crowd(client: Client, endpoint: str) -> Row:
    """Many callers at zero replicas at once: one start, and an answer for each."""
    client.sleep(endpoint)
    before = int(client.get(endpoint)["cold_starts"])
    with ThreadPoolExecutor(CALLERS) as callers:
        begun = time.perf_counter()
        answered = sum(status == 200 for status, _ in callers.map(lambda _: call(client, endpoint), range(CALLERS)))
        took = time.perf_counter() - begun
    starts = int(client.get(endpoint)["cold_starts"]) - before
    said = f"{answered} of {CALLERS} answered, {starts} start, {took * 1000:.0f} ms for all"
    return Row(f"{CALLERS} callers at once", said, "", "", None, None, answered == CALLERS and starts == 1)
