"""Mixed calls for minutes (cold, warm, streams, leavers, errors): what the router holds does not grow."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.platform import conditions
from bench.table import Row
from torpor import Client
from torpor.chaos.callers import Scene, caller
from torpor.chaos.look import settle
from torpor.chaos.run import CALLERS, ENDPOINTS, SETTLE_WITHIN, World, account, quiet, world

SAMPLES = 60  # in all
WARM_UP = 0.25  # of the time: pools and caches fill, and are no leak


@dataclass(frozen=True, slots=True)
class Held:
    """One kind of thing that the router holds, and how much more of it at the end is noise."""

    name: str
    share: float  # of what it was
    spare: float  # and so much more

    def flat(self, first: float, last: float) -> bool:
        return last <= first * (1 + self.share) + self.spare


HELD = (Held("memory", 0.05, 4 << 20), Held("descriptors", 0.10, 8), Held("tasks", 0.10, 8))


def thirds(samples: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and the last third of what came after the warm-up."""
    warm = samples[int(len(samples) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    return statistics.median(warm[:third]), statistics.median(warm[-third:])


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    seconds = options.minutes * 60
    rng = random.Random(0)
    with world(rng) as made:
        quiet(made)
        at_rest = len(settle(made.look, SETTLE_WITHIN))
        before = status(made)["descriptors"]
        scene = Scene(made.url, tuple(ENDPOINTS), time.monotonic() + seconds)
        callers = [threading.Thread(target=caller, args=(scene, random.Random(rng.random()))) for _ in range(CALLERS)]
        for each in callers:
            each.start()
        seen = sampled(made, scene, seconds / SAMPLES)
        for each in callers:
            each.join()
        lost = scene.lost + account(made, before)
    rows = [row(held, seen[held.name]) for held in HELD]
    calls = f"{scene.counts['calls']} calls, {len(lost)} lost"
    rows.append(Row("no call, lease or process is lost", calls, "", "; ".join(lost[:3]), None, None, not lost))
    return {**conditions(), "minutes": options.minutes, "callers": CALLERS, "unsettled at first": at_rest}, rows


def sampled(made: World, scene: Scene, every: float) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {held.name: [] for held in HELD}
    while time.monotonic() < scene.ends:
        found = status(made)
        for name, values in seen.items():
            values.append(found[name])
        if len(seen["tasks"]) % 20 == 0:
            print(f"{scene.ends - time.monotonic():.0f} s left", file=sys.stderr)
        time.sleep(every)
    return seen


def status(made: World) -> dict[str, Any]:
    with Client(made.url) as client:
        return client.status()


def row(held: Held, samples: Sequence[float]) -> Row:
    first, last = thirds(samples)
    scale, unit = (1 << 20, " MiB") if held.name == "memory" else (1, "")
    allowed = f"at most {(first * (1 + held.share) + held.spare) / scale:.1f}{unit}"
    said = f"{first / scale:.1f} -> {last / scale:.1f}{unit}"
    return Row(f"router's {held.name}, first and last third", said, "", allowed, None, None, held.flat(first, last))
