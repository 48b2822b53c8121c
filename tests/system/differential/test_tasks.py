"""`@bentoml.task`: submit, status, get, retry, cancel."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.system.differential.pair import Pair, answer_of, check_alike, until

IDS = ("task_id",)
INSTANTS = ("created_at", "executed_at", "completed_at")


def same(stock: httpx.Response, torpor: httpx.Response, status: int) -> Any:
    """The JSON that both answered, but for ids and instants."""
    bodies = [json.loads(answer.content) for answer in (stock, torpor)]
    for body in bodies:
        for name in (*IDS, *INSTANTS):
            if name in body:
                body[name] = "..." if body[name] else None
    assert [stock.status_code, torpor.status_code] == [status, status], bodies
    assert bodies[0] == bodies[1]
    assert set(stock.headers) - {"connection"} <= set(torpor.headers)
    return bodies[0]


def submit(pair: Pair, task: str, arguments: Any) -> dict[str, str]:
    """The task's id on each side."""
    stock, torpor = pair.each("wide", "POST", f"/{task}/submit", json=arguments)
    assert same(stock, torpor, 200) == {"task_id": "...", "status": "in_progress"}
    return {"stock": stock.json()["task_id"], "torpor": torpor.json()["task_id"]}


def ask(pair: Pair, ids: dict[str, str], method: str, path: str) -> tuple[httpx.Response, httpx.Response]:
    stock, torpor = pair.on_both(lambda side: pair.send(side, "wide", method, path, params={"task_id": ids[side]}))
    return stock, torpor


def ended(pair: Pair, ids: dict[str, str], task: str) -> Any:
    """The status that both end with."""

    def over() -> bool:
        return all(answer.json()["status"] != "in_progress" for answer in ask(pair, ids, "GET", f"/{task}/status"))

    until(over)
    return same(*ask(pair, ids, "GET", f"/{task}/status"), 200)["status"]


def test_a_task_is_submitted_completed_fetched_and_retried(pair: Pair) -> None:
    ids = submit(pair, "long", {"seconds": 0.6})
    early = ask(pair, ids, "GET", "/long/get")
    assert [answer.status_code for answer in early] == [400, 400]
    assert [answer.json()["error"].replace(ids[side], "...") for side, answer in zip(ids, early, strict=True)] == [
        "task ... is not completed yet"
    ] * 2
    assert ended(pair, ids, "long") == "completed"
    stock, torpor = map(answer_of, ask(pair, ids, "GET", "/long/get"))
    check_alike(stock, torpor)
    assert (stock.status, stock.body) == (200, b"done")
    again = ask(pair, ids, "POST", "/long/retry")
    assert same(*again, 200)["status"] == "in_progress"
    retried = dict(zip(ids, (answer.json()["task_id"] for answer in again), strict=True))
    assert retried != ids
    assert ended(pair, retried, "long") == "completed"


@pytest.mark.parametrize(("task", "arguments", "status"), [("breaks_later", {}, 500), ("long", {"seconds": "x"}, 400)])
def test_a_task_that_fails_keeps_its_error(pair: Pair, task: str, arguments: Any, status: int) -> None:
    ids = submit(pair, task, arguments)
    assert ended(pair, ids, task) == "failed"
    stock, torpor = map(answer_of, ask(pair, ids, "GET", f"/{task}/get"))
    check_alike(stock, torpor)
    assert stock.status == status


def test_a_task_is_called_like_a_method_too(pair: Pair) -> None:
    assert pair.call(200, "wide", "long").body == b"done"
    pair.call(400, "wide", "long", seconds="x")
    pair.call(500, "wide", "breaks_later")


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (400, "GET", "/long/status"),
        (400, "GET", "/long/get"),
        (400, "POST", "/long/retry"),
        (400, "PUT", "/long/cancel"),
        (404, "GET", "/long/status?task_id=none"),
        (404, "GET", "/long/get?task_id=none"),
        (404, "POST", "/long/retry?task_id=none"),
        (400, "PUT", "/long/cancel?task_id=none"),
        (405, "GET", "/long/submit"),
        (405, "POST", "/long/status"),
        (404, "POST", "/add/submit"),
    ],
)
def test_what_names_no_task_is_refused_alike(pair: Pair, status: int, method: str, path: str) -> None:
    pair.both(status, "wide", method, path)


def test_a_running_task_is_not_cancelled_by_either(pair: Pair) -> None:
    ids = submit(pair, "long", {"seconds": 0.8})
    assert "not supported" in same(*ask(pair, ids, "PUT", "/long/cancel"), 400)["error"]
    assert ended(pair, ids, "long") == "canceled"
