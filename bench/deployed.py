"""`bentoml deploy` to the first answer, and an endpoint with a thousand revisions: listed and read."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.platform import BIN, ROOT, exported_model
from bench.table import Row
from torpor.cli.platform import read_address

REVISIONS = 1000
READS = 50
CALLABLE_WITHIN = 5.0  # seconds beyond the command line's own work
READ_WITHIN = 0.05  # seconds
TEXTS = {"texts": ["The kitten naps in the sun."]}


class Place:
    """A platform with a data folder of its own, stopped and started again, and a home of the bentoml command's."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.env = {**os.environ, "TORPOR_DATA": str(self.data), "BENTOML_DO_NOT_TRACK": "True"}
        self.url = ""

    def up(self) -> None:
        self._run("torpor", "up", "--detach", "--port", "0")
        found = read_address(self.data)
        assert found is not None, "the platform wrote no address"
        self.url = found["url"]

    def down(self) -> None:
        self._run("torpor", "down")

    def token(self) -> str:
        return str(json.loads(self._run("torpor", "tokens", "create", "bench", "--scope", "admin", "--json"))["token"])

    def bentoml(self, *arguments: str) -> str:
        return self._run("bentoml", *arguments)

    def _run(self, command: str, *arguments: str) -> str:
        done = subprocess.run([str(BIN / command), *arguments], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command} {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


def deployed(rounds: int) -> list[Row]:
    """The stock embedding service, pushed and with its environment there, as a new deployment each time."""
    exported_model()
    seen: dict[str, list[float]] = {"command": [], "beyond": []}
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        place = Place(Path(folder))
        place.up()
        try:
            token = place.token()
            place.bentoml("cloud", "login", "--endpoint", place.url, "--api-token", token)
            built = place.bentoml("build", "-o", "tag", str(ROOT / "services" / "embedding"))
            tag = built.strip().rsplit("__tag__:", 1)[1]
            place.bentoml("deploy", tag, "--name", "first")  # pushes the bento and its model
            for k in range(rounds):
                print(f"deploy {k + 1} of {rounds}", file=sys.stderr)
                began = time.perf_counter()
                place.bentoml("deploy", tag, "--name", f"command-{k}")
                seen["command"].append(time.perf_counter() - began)
                seen["beyond"].append(beyond(place.url, token, tag, f"plain-{k}"))
        finally:
            place.down()
    took = statistics.median(seen["beyond"])
    whole = f"the whole command {statistics.median(seen['command']):.2f} s"
    limit = f"{CALLABLE_WITHIN:g} s"
    name = "`bentoml deploy` to callable, beyond the command's own work"
    return [Row.of(name, f"{took:.2f} s", limit, CALLABLE_WITHIN / took, 1.0, whole)]


def beyond(url: str, token: str, tag: str, name: str) -> float:
    """Seconds from the request that the command sends until a call of the new deployment is answered."""
    body: dict[str, Any] = {"bento": tag, "name": name, "services": {}, "access_authorization": False}
    headers = {"X-YATAI-API-TOKEN": token}
    with httpx.Client(timeout=60) as client:
        began = time.perf_counter()
        made = client.post(f"{url}/api/v2/deployments", json=body, headers=headers).raise_for_status().json()
        while made["status"] not in ("running", "scaled-to-zero"):
            assert made["status"] in ("deploying", "image-building"), made["status"]
            made = client.get(f"{url}/api/v2/deployments/{name}", headers=headers).raise_for_status().json()
        client.post(f"{made['urls'][0]}/embed", json=TEXTS).raise_for_status()
        return time.perf_counter() - began


def revisions() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        place = Place(Path(folder))
        place.up()
        try:
            place._run("torpor", "deploy", str(ROOT / "examples" / "hello_json"), "--name", "old")
        finally:
            place.down()
        asyncio.run(register(place.data))
        place.up()
        try:
            with httpx.Client(base_url=place.url, timeout=60) as client:
                listed = median(lambda: client.get("/api/v2/deployments").raise_for_status())
                got = median(lambda: client.get("/api/v2/deployments/old").raise_for_status())
                told = median(lambda: client.get("/torpor/v1/endpoints/old/revisions").raise_for_status())
        finally:
            place.down()
    limit = f"{READ_WITHIN * 1000:.0f} ms"
    named = (("list of deployments", listed), ("one deployment", got), ("its history", told))
    return [
        Row.of(f"{REVISIONS:,} revisions: {name}", f"{took * 1000:.1f} ms", limit, READ_WITHIN / took, 1.0)
        for name, took in named
    ]


def median(read: Callable[[], Any]) -> float:
    read()
    seen = []
    for _ in range(READS):
        began = time.perf_counter()
        read()
        seen.append(time.perf_counter() - began)
    return statistics.median(seen)


async def register(folder: Path) -> None:
    """Copies the one revision under the numbers up to a thousand; the last one is live."""
    from router.core.catalog import Change
    from router.store import Store

    store = Store.at(folder)
    try:
        [live] = store.load()
        new = tuple(dataclasses.replace(live, revision=number) for number in range(2, REVISIONS + 1))
        await store.put(Change(live.name, new, new[-1]))
    finally:
        store.close()
