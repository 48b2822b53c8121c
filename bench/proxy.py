"""The router's proxy beside nginx, in front of the same upstreams: its rate, what it adds, and the cost of an event."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.debian import libraries, tools
from bench.loads import CONNECTIONS, EVENT_RATE, RATE, STREAMS, Full, Streamed, full, steady, streamed
from bench.platform import conditions
from bench.sides import BODY, Cores, Side, sides
from bench.table import Row

RATE_GOAL = 0.8  # of nginx's rate
ADDED_GOAL = 1 / 1.5  # nginx's added time by ours
EVENT_WITHIN = 0.35e-3  # seconds
_SLICE = 0.25  # seconds of the steady load before it is another's turn: what else the machine does hits all alike


@dataclass(slots=True)
class Measured:
    """What the rounds gave for one side."""

    alike: list[Full] = field(default_factory=list)
    different: list[Full] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)  # seconds of each call
    events: list[Streamed] = field(default_factory=list)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    found = tools("nginx", "wrk")
    cores = Cores.of_this_machine()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.others})
    try:
        with tempfile.TemporaryDirectory(prefix="torpor-bench-") as name:
            folder = Path(name)
            with sides(folder, found["nginx"], cores) as (torpor, nginx, direct):
                got = measure(options, folder, found["wrk"], cores, (torpor, nginx, direct))
    finally:
        os.sched_setaffinity(0, allowed)
    ours, theirs, neither = (got[side.name] for side in (torpor, nginx, direct))
    rows = [
        rate_row(f"requests per CPU second, {CONNECTIONS} connections", ours.alike, theirs.alike, RATE_GOAL),
        rate_row("the same, no two heads alike", ours.different, theirs.different, None),
        added_row(ours.steady, theirs.steady, neither.steady),
        *event_rows(ours.events, theirs.events),
    ]
    return {**conditions(), **setting(options, found)}, rows


def measure(
    options: argparse.Namespace, folder: Path, wrk: str, cores: Cores, ways: tuple[Side, ...]
) -> dict[str, Measured]:
    """Every load of every round through torpor and nginx in turn, the steady one around both too."""
    got = {side.name: Measured() for side in ways}
    proxies = ways[:2]
    for side in proxies:
        full(side, wrk, folder, cores, alike=True)  # before anything counts
    for turn in range(options.rounds):
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
        pair = proxies if turn % 2 == 0 else proxies[::-1]  # neither is always the one that finds the machine warm
        for _ in range(max(1, round(options.seconds))):
            for alike in (True, False):
                for side in pair:
                    load = full(side, wrk, folder, cores, alike=alike)
                    (got[side.name].alike if alike else got[side.name].different).append(load)
        for _ in range(max(1, round(options.seconds / _SLICE))):
            for side in (*pair, *ways[2:]):
                got[side.name].steady += steady(side, _SLICE)
        for side in pair:
            got[side.name].events.append(streamed(side, options.seconds))
    return got


def rate_row(name: str, ours: list[Full], theirs: list[Full], goal: float | None) -> Row:
    """The ratio is the median of the rounds': two loads side by side saw the same machine."""
    mine, peer = (statistics.median(load.by_cpu for load in loads) for loads in (ours, theirs))
    ratio = statistics.median(one.by_cpu / other.by_cpu for one, other in zip(ours, theirs, strict=True))
    clock = [statistics.median(load.by_clock for load in loads) for loads in (ours, theirs)]
    other = f"by the clock {clock[0]:,.0f}/s, nginx {clock[1]:,.0f}/s"
    if goal is None:
        return Row(name, f"{mine:,.0f}/s", f"{peer:,.0f}/s", other, round(ratio, 3), None, True)
    return Row.of(name, f"{mine:,.0f}/s", f"{peer:,.0f}/s", ratio, goal, other)


def added_row(ours: list[float], theirs: list[float], neither: list[float]) -> Row:
    around = statistics.median(neither)
    mine, peer = statistics.median(ours) - around, statistics.median(theirs) - around
    name, other = f"p50 added at {RATE}/s", f"without a proxy {micros(around)}"
    return Row.of(name, micros(mine), micros(peer), peer / mine, round(ADDED_GOAL, 3), other)


def event_rows(ours: list[Streamed], theirs: list[Streamed]) -> list[Row]:
    """Here the goal is a time, and nginx only stands beside it."""
    apart = min(statistics.median(load.reads for load in loads) for loads in (ours, theirs))
    rows = []
    for name, what in (("CPU", "cpu"), ("p50 until received", "took")):
        mine, peer = (statistics.median(getattr(load, what) for load in loads) for loads in (ours, theirs))
        title = f"SSE chunk: {name}, at most {micros(EVENT_WITHIN)}"
        other = f"ratio: {micros(EVENT_WITHIN)} to torpor's; {apart:.0%} read alone"
        rows.append(Row.of(title, micros(mine), micros(peer), EVENT_WITHIN / mine, 1.0, other))
    return rows


def micros(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"


def setting(options: argparse.Namespace, found: dict[str, str]) -> dict[str, Any]:
    said = subprocess.run([found["nginx"], "-v"], capture_output=True, text=True, env=libraries()).stderr
    return {
        "nginx": said.strip().rpartition("/")[2],
        "rounds": options.rounds,
        "seconds a load": options.seconds,
        "bodies": f"{BODY} bytes both ways",
        "headers": "both add X-Forwarded-For, -Proto, -Host and X-Request-Id",
        "streams": f"{STREAMS}, {EVENT_RATE} chunks/s in all",
        "cores": "the proxy on one, upstream and callers on another",
    }
