"""`max_concurrency`: what BentoML refuses, torpor queues, unless it is told to send more to the replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.system.differential.pair import Answer, Pair, answer_of, check_alike, home, until
from tests.system.running import free_port


@contextmanager
def held(gate: Path, call: Callable[[str], Any]) -> Iterator[Future[httpx.Response]]:
    """A call that runs, and keeps its slot, until the end of the block; then its answer."""
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(call, str(gate))
        try:
            until(gate.with_name(gate.name + ".begun").exists)
            yield answer
        finally:
            gate.touch()


def refused(url: str, gate: Path) -> Answer:
    """The answer to a call beside another that runs."""

    def call(path: str) -> httpx.Response:
        return httpx.post(f"{url}/hold", json={"path": path}, timeout=30)

    with held(gate, call) as first:
        second = answer_of(httpx.post(f"{url}/four_times", json={"a": 1}, timeout=30))
    assert first.result().text == "held"
    return second


def test_the_replica_answers_429_as_bentoml_does(pair: Pair, tmp_path: Path) -> None:
    port = free_port()
    with home(pair.folder):
        pair.deploy(pair.folder / "narrow", "narrow-open", concurrency=8, port=port)
    stock = refused(pair.sides["stock"]["narrow"], tmp_path / "stock")
    torpor = refused(f"http://127.0.0.1:{port}", tmp_path / "torpor")
    check_alike(stock, torpor)
    assert (stock.status, stock.body) == (429, b'{"error":"Too many requests"}')
    pair.client.delete("narrow-open")


def test_by_default_a_call_above_the_limit_waits_for_its_turn(pair: Pair, tmp_path: Path) -> None:
    """The one difference: an endpoint has a queue (`max_queue`), so nobody is refused while it has room."""
    url = pair.sides["torpor"]["narrow"]

    def call(path: str) -> httpx.Response:
        return httpx.post(f"{url}/hold", json={"path": path}, timeout=30)

    with ThreadPoolExecutor(1) as callers:
        with held(tmp_path / "gate", call) as first:
            second = callers.submit(httpx.post, f"{url}/four_times", json={"a": 1}, timeout=30)
            until(lambda: pair.client.get("narrow")["parked"] == 1)
        assert (first.result().text, second.result().text) == ("held", "4")
