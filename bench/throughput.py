"""Calls a second of the embedding service, beside servers that batch: each on one core, with one thread.

One text a call, connections that stay, the same fp32 graph. The callers have the other core.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.debian import libraries, tools
from bench.platform import conditions, exported_model
from bench.servers import Side, all_sides, bound, install
from bench.sides import Cores
from bench.table import Row

SHORT = "The kitten naps in the sun."  # 10 tokens
LONG = " ".join(
    ["The committee met in the old town hall to discuss the harbour and the school."] * 7
    + ["And then they left the town.", *["so"] * 6]
)  # 127 tokens
CONNECTIONS = (1, 8, 32)
BATCHING = ("bentoml serve", "litserve", "mosec")
BOUND = "in-process bound"
UNBATCHED = 2  # torpor and its copy without batches are the first of all sides
LONGER = 3  # times as long a load of long texts: a few dozen answers a second
EVERY = 3  # and every so many rounds
NOISE = 0.97  # two loads of one server differ by as much

_SCRIPT = """
wrk.method = "POST"
wrk.body = %s
wrk.headers["Content-Type"] = "application/json"
"""

Seen = dict[tuple[str, str, int], list[float]]  # (side, text, connections): answers a second of each round


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    exported_model()
    versions = install()
    wrk, cores = tools("wrk")["wrk"], Cores.of_this_machine()
    seen: Seen = {}
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as name:
        folder = Path(name)
        with all_sides(folder, cores.proxy) as sides:

            def load(side: Side, text: str, connections: int) -> float:
                seconds = options.seconds * (LONGER if text == LONG else 1)
                command = ["taskset", "-c", str(cores.others), wrk, f"-d{max(1, round(seconds))}s"]
                return calls(command, side, text, connections, folder / "calls.lua")

            for text in (SHORT, LONG):
                for side in sides:
                    load(side, text, 8)  # BentoML's and torpor's batches learn from what they see
            for turn in range(options.rounds):
                print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
                each = bound(cores.proxy, max(CONNECTIONS), options.seconds, SHORT)
                seen.setdefault((BOUND, SHORT, max(CONNECTIONS)), []).append(each)
                for connections in CONNECTIONS:
                    for text in (SHORT, LONG) if turn % EVERY == 0 else (SHORT,):
                        for side in sides if text == SHORT else sides[:UNBATCHED]:
                            seen.setdefault((side.name, text, connections), []).append(load(side, text, connections))
    told = {"rounds": options.rounds, "seconds a load": options.seconds, "cores": "one serves, one calls"}
    return {**conditions(), **versions, **told}, rows(seen)


def calls(command: list[str], side: Side, text: str, connections: int, script: Path) -> float:
    """Answers a second. Raises RuntimeError where a call is not answered as it should be."""
    script.write_text(_SCRIPT % json.dumps(json.dumps({"texts": [text]})))
    flags = ["-t1", f"-c{connections}", "--timeout", "30s", "-s", str(script)]
    url = f"http://127.0.0.1:{side.port}{side.path}"
    said = subprocess.run([*command, *flags, url], check=True, capture_output=True, text=True, env=libraries()).stdout
    counted = re.search(r"(\d+) requests in ([0-9.]+)s", said)
    if counted is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"{side.name} did not answer as it should:\n{said}")
    return int(counted[1]) / float(counted[2])


def rows(seen: Seen) -> list[Row]:
    found = []
    for connections in CONNECTIONS:
        best = max(BATCHING, key=lambda name: statistics.median(seen[name, SHORT, connections]))
        name = f"a short sentence a call, {connections} connections"
        found.append(row(name, seen, SHORT, connections, best, 1.0))
    found.append(row("a short sentence a call, beside the method alone", seen, SHORT, max(CONNECTIONS), BOUND, 0.9))
    for connections in CONNECTIONS:
        name = f"127 tokens a call, {connections} connections"
        found.append(row(name, seen, LONG, connections, "unbatched", NOISE))
    return found


def row(name: str, seen: Seen, text: str, connections: int, peer: str, goal: float) -> Row:
    """The ratio is the median of the rounds' own: what disturbs the machine disturbs both sides of a round."""
    own, other = seen["torpor", text, connections], seen[peer, text, connections]
    ratio = statistics.median(one / another for one, another in zip(own, other, strict=True))
    others = [
        f"{side} {statistics.median(values):.1f}"
        for (side, said, count), values in seen.items()
        if (said, count) == (text, connections) and side not in ("torpor", peer, BOUND)
    ]
    return Row.of(name, rate(own), f"{peer} {rate(other)}", ratio, goal, ", ".join(others))


def rate(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}/s"
