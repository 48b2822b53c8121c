"""A service's own deadline: 504 until the answer has begun, nothing after that, in the lean lane and outside of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.system.differential.pair import Pair, answer_of, check_alike

LONG = 1.6  # seconds; the deadline is one second
PART = ("a", b"123")

LATE: list[tuple[str, dict[str, Any]]] = [
    ("sleep", {"json": {"seconds": LONG}}),
    ("sleep_async", {"json": {"seconds": LONG}}),
    ("stubborn", {"json": {"seconds": LONG}}),
    ("slow_stream", {"json": {"before": LONG}}),
    ("slow_batch", {"json": {"seconds": [LONG]}}),
    ("file", {"files": {"path": PART}, "data": {"seconds": str(LONG)}}),  # not in the lean lane
]


def test_what_is_late_is_504_wherever_it_runs(pair: Pair) -> None:
    """All at once: each waits for its own deadline."""
    asks = [(side, method, options) for method, options in LATE for side in pair.sides]
    with ThreadPoolExecutor(len(asks)) as callers:
        answers = list(
            callers.map(lambda ask: answer_of(pair.send(ask[0], "hurried", "POST", f"/{ask[1]}", **ask[2])), asks)
        )
    for stock, torpor in zip(answers[::2], answers[1::2], strict=True):
        check_alike(stock, torpor)
        assert (stock.status, stock.body) == (504, b'{"error":"Not able to process the request in 1 seconds"}')


def test_what_is_in_time_is_answered(pair: Pair) -> None:
    assert pair.call(200, "hurried", "sleep", seconds=0).body == b"slept"
    assert pair.call(200, "hurried", "sleep_async", seconds=0.05).body == b"slept"
    assert pair.call(200, "hurried", "slow_batch", seconds=[0.05]).body == b"[0.05]"
    assert pair.both(200, "hurried", "POST", "/file", files={"path": PART}).body == b"3"


def test_both_ways_to_a_deadline_are_tried_here(pair: Pair) -> None:
    """The lean lane alone says how long a method took."""
    lean = pair.send("torpor", "hurried", "POST", "/sleep", json={"seconds": 0})
    whole = pair.send("torpor", "hurried", "POST", "/file", files={"path": PART})
    assert ["infer;dur=" in answer.headers["server-timing"] for answer in (lean, whole)] == [True, False]


def test_an_answer_that_cannot_be_written_is_500(pair: Pair) -> None:
    """The status is the same; BentoML gives it at its deadline, which is a second here, the lean lane at once."""
    assert pair.call(500, "hurried", "unreachable").body == b"Internal Server Error"
