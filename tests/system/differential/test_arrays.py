"""Arrays, and methods that take many calls at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.system.differential.pair import Pair, answer_of, check_alike

SQUARE = [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("method", "body", "value"),
    [
        ("double", {"array": SQUARE}, [[2, 4], [6, 8]]),
        ("double", {"array": 5}, 10),
        ("double", {"array": []}, []),
        ("root_double", SQUARE, [[2, 4], [6, 8]]),
        ("root_double", [1.5], [3.0]),
        ("typed_array", {"array": SQUARE}, [[2.0, 3.0], [4.0, 5.0]]),
        ("batched", {"texts": ["a", "bb"]}, [1, 2]),
        ("batched", {"texts": []}, []),
        ("batched", {"texts": ["a"] * 20}, [1] * 20),  # more than a batch may hold
        ("batched_array", {"rows": SQUARE}, [3, 7]),
        ("batched_short", {"texts": ["a", "b"]}, ["b"]),  # a caller alone gets what came
    ],
)
def test_arrays_and_batches_answer_alike(pair: Pair, method: str, body: Any, value: Any) -> None:
    assert json.loads(pair.both(200, "wide", "POST", f"/{method}", json=body).body) == value


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [
        (400, "double", {}),
        (500, "double", {"array": "x"}),
        (400, "typed_array", {"array": [1, 2]}),
        (400, "typed_array", {"array": [[1, 2], [3, "x"]]}),
        (400, "batched", {}),
        (400, "batched", {"texts": [1]}),
        (500, "batched_array", {"rows": [1, 2]}),
        (400, "batched_breaks", {"texts": ["a"]}),
    ],
)
def test_arrays_and_batches_are_refused_alike(pair: Pair, status: int, method: str, body: Any) -> None:
    pair.both(status, "wide", "POST", f"/{method}", json=body)


def test_raw_arrays_are_no_input(pair: Pair) -> None:
    """BentoML's client sends arrays as JSON; a service reads every body of that media type as JSON."""
    raw = {"content-type": "application/vnd.bentoml+numpy", "shape": "2,2", "dtype": "float32"}
    pair.both(400, "wide", "POST", "/double", content=b"\0" * 16, headers=raw)
    pair.both(500, "wide", "POST", "/root_double", content=b"\0" * 16, headers=raw)
    answer = pair.both(200, "wide", "POST", "/double", content=json.dumps({"array": SQUARE}).encode(), headers=raw)
    assert json.loads(answer.body) == [[2, 4], [6, 8]]


def test_calls_at_once_get_their_own_results(pair: Pair) -> None:
    texts = [["x" * number] * (number % 3 + 1) for number in range(24)]

    def answers(side: str) -> list[Any]:
        def call(each: list[str]) -> Any:
            return pair.send(side, "wide", "POST", "/batched", json={"texts": each}).json()

        with ThreadPoolExecutor(8) as callers:
            return list(callers.map(call, texts))

    own = [[len(text) for text in each] for each in texts]
    assert pair.on_both(answers) == [own, own]


def test_headers_that_a_batch_sets_reach_the_caller_each_time(pair: Pair) -> None:
    """The one difference: BentoML runs every later batch in the context of its first caller, whose answer is gone."""
    for attempt in range(2):
        stock, torpor = pair.each("wide", "POST", "/batched_with_context", json={"texts": ["a"]})
        assert torpor.status_code == 200
        assert torpor.headers["x-own"] == "batch"
        if attempt or "x-own" not in stock.headers:
            assert "x-own" not in stock.headers, "BentoML has mended it: this is no exception any more"
            stock.headers["x-own"] = "batch"
        check_alike(answer_of(stock), answer_of(torpor))
