"""A call at zero replicas, beside the start of `bentoml serve` on the same service to its first answer."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from bench.platform import BIN, ROOT, conditions, exported_model, started
from bench.table import Row
from torpor import Client

GOALS = {"int8": 40.0, "fp32": 30.0}
BODY = json.dumps({"texts": ["The kitten naps in the sun."]})
CALLERS = 50
SERVE_WITHIN = 60.0  # seconds


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    exported_model()
    ours: dict[str, list[float]] = {precision: [] for precision in GOALS}
    theirs: dict[str, list[float]] = {precision: [] for precision in GOALS}
    phases: dict[str, list[str]] = {precision: [] for precision in GOALS}
    with started() as client:
        for precision in GOALS:
            client.deploy(
                str(ROOT / "services" / "embedding"), name=f"bench-{precision}", env={"TORPOR_PRECISION": precision}
            )
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
            for precision in GOALS:
                for _ in range(3):
                    took, timing = cold_call(client, f"bench-{precision}")
                    ours[precision].append(took)
                    phases[precision].append(timing)
                theirs[precision].append(serve_once(precision))
        rows = [row(precision, ours[precision], theirs[precision], phases[precision]) for precision in GOALS]
        rows.append(crowd(client, "bench-int8"))
    return {**conditions(), "rounds": options.rounds, "cold calls a round": 3}, rows


def row(precision: str, ours: list[float], theirs: list[float], phases: list[str]) -> Row:
    mine, peer = statistics.median(ours), statistics.median(theirs)
    typical = phases[ours.index(sorted(ours)[len(ours) // 2])]
    name = f"cold start, MiniLM {precision}"
    return Row.of(name, f"{mine * 1000:.0f} ms", f"{peer * 1000:.0f} ms", peer / mine, GOALS[precision], typical)


def cold_call(client: Client, endpoint: str) -> tuple[float, str]:
    """Seconds from the connect to the last byte, and the answer's phases."""
    client.sleep(endpoint)
    where = urlsplit(client.url)
    begun = time.perf_counter()
    status, headers = post(where.hostname or "", where.port or 80, f"/endpoints/{endpoint}/embed")
    took = time.perf_counter() - begun
    assert status == 200, f"the cold call was answered {status}"
    assert headers["x-torpor-cold-start"] == "true", "the endpoint was not asleep"
    return took, headers.get("server-timing", "")


def serve_once(precision: str) -> float:
    """Seconds from the exec of `bentoml serve` to the last byte of its first answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "TORPOR_PRECISION": precision}
    command = [str(BIN / "bentoml"), "serve", ".", "--host", "127.0.0.1", "--port", str(port)]
    begun = time.perf_counter()
    server = subprocess.Popen(
        command,
        cwd=ROOT / "services" / "embedding",
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while time.perf_counter() - begun < SERVE_WITHIN:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = post("127.0.0.1", port, "/embed")
                if status == 200:
                    return time.perf_counter() - begun
            time.sleep(0.005)
        raise TimeoutError(f"`{' '.join(command)}` gave no answer within {SERVE_WITHIN:.0f} s")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def post(host: str, port: int, path: str) -> tuple[int, dict[str, str]]:
    line = http.client.HTTPConnection(host, port, timeout=SERVE_WITHIN)
    try:
        line.request("POST", path, BODY, {"Content-Type": "application/json"})
        answer = line.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        line.close()


def crowd(client: Client, endpoint: str) -> Row:
    """Many callers at zero replicas at once: one start, and an answer for each."""
    client.sleep(endpoint)
    before = int(client.get(endpoint)["cold_starts"])
    where = urlsplit(client.url)

    def call(_: int) -> int:
        return post(where.hostname or "", where.port or 80, f"/endpoints/{endpoint}/embed")[0]

    with ThreadPoolExecutor(CALLERS) as callers:
        begun = time.perf_counter()
        answered = sum(status == 200 for status in callers.map(call, range(CALLERS)))
        took = time.perf_counter() - begun
    starts = int(client.get(endpoint)["cold_starts"]) - before
    said = f"{answered} of {CALLERS} answered, {starts} start, {took * 1000:.0f} ms for all"
    return Row(f"{CALLERS} callers at once", said, "", "", None, None, answered == CALLERS and starts == 1)
