"""Thousands of endpoints registered, one in use: what they cost a call, a listing, a start, and in memory."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.memory import mb, pss
from bench.platform import ROOT, conditions, exported_model
from bench.stock import post
from bench.table import Row
from torpor import Client
from torpor.cli.platform import read_address

ENDPOINTS = 2000
CALLS = 200
NOISE = 0.8  # a ratio above this is within the noise of two runs on a shared machine
START_WITHIN = 2.0  # seconds until the platform serves


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    exported_model()
    with tempfile.TemporaryDirectory(prefix="torpor-scale-") as few, tempfile.TemporaryDirectory() as many:
        for folder in (few, many):
            with Platform(folder) as client:
                client.deploy(str(ROOT / "examples" / "hello_json"), name="used")
        asyncio.run(register(Path(many)))
        one = [Seen.of(few) for _ in range(3)]
        all_of = [Seen.of(many) for _ in range(3)]
    start, call, listing, memory = (
        (statistics.median(getattr(seen, name) for seen in one), statistics.median(getattr(s, name) for s in all_of))
        for name in ("start", "call", "listing", "memory")
    )
    extra = (memory[1] - memory[0]) / ENDPOINTS
    rows = [
        Row.of("a warm call, p50", ms(call[1]), ms(call[0]), call[0] / call[1], NOISE, "peer: one endpoint registered"),
        Row(
            "exec to the first answer of a new start",
            ms(start[1]),
            ms(start[0]),
            "",
            None,
            None,
            start[1] < START_WITHIN,
        ),
        Row("listing them all", ms(listing[1]), ms(listing[0]), "", None, None, True),
        Row(
            "memory of the router",
            mb(int(memory[1])),
            mb(int(memory[0])),
            f"{extra / 1024:.1f} KiB each",
            None,
            None,
            True,
        ),
    ]
    return {**conditions(), "endpoints": ENDPOINTS}, rows


@dataclasses.dataclass(frozen=True)
class Seen:
    """One start of a platform: seconds from exec to the first answer, of a warm call and of a listing; bytes."""

    start: float
    call: float
    listing: float
    memory: int

    @classmethod
    def of(cls, folder: str) -> Seen:
        begun = time.perf_counter()
        with Platform(folder) as client:
            hello(client)
            start = time.perf_counter() - begun
            calls = []
            for _ in range(CALLS):
                begun = time.perf_counter()
                hello(client)
                calls.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            client.list()
            listing = time.perf_counter() - begun
            return cls(start, statistics.median(calls), listing, pss(int(client.status()["pid"])))


class Platform:
    """`python -m router` on a data folder that stays."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def __enter__(self) -> Client:
        command = [sys.executable, "-P", "-m", "router", "--port", "0", "--data", str(self._folder)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while (found := read_address(self._folder)) is None:
            assert self._process.poll() is None, "the platform did not start"
            time.sleep(0.002)
        self._client = Client(found["url"])
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(60)


async def register(folder: Path) -> None:
    """Copies the endpoint in use, as it is in the database, under many names."""
    from router.core.catalog import Change
    from router.store import Store

    store = Store.at(folder)
    try:
        [used] = store.load()
        for k in range(ENDPOINTS - 1):
            await store.put(Change.of(dataclasses.replace(used, name=f"idle-{k:04d}")))
    finally:
        store.close()


def hello(client: Client) -> None:
    where = client.url.removeprefix("http://").rpartition(":")
    status, _ = post(where[0], int(where[2]), "/endpoints/used/greet", json.dumps({"person": {"name": "Ada"}}))
    assert status == 200


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
