"""Two answers to the same call: the same by their values, or different at a place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.proxy.tap import Answer
from router.shell.difference import difference


def told(status: int, body: bytes, whole: bool = True) -> Answer:
    answer = Answer(status)
    answer.add(body)
    answer.whole = whole
    return answer


@pytest.mark.parametrize(
    ("live", "copy", "place"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None),
        ({"a": 1.0}, {"a": 1.00009}, None),
        ({"a": 1.0}, {"a": 1.0002}, '$["a"]'),
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": 1}, {"a": True}, '$["a"]'),
        ({"a": 1.0}, {"a": True}, '$["a"]'),
        ([1e-9, -1e-9], [-1e-9, 1e-9], None),
        ([10**400, 1], [0.5, 1], "$[0]"),
        ({"a": [{"b": "x"}, {"b": "y"}]}, {"a": [{"b": "x"}, {"b": "z"}]}, '$["a"][1]["b"]'),
        ([1, 2, 3], [1, 2], "$[2]"),
        ({"a": 1}, {"a": 1, "b": None}, '$["b"]'),
        ([[1, 2], [3]], [[1, 2], {}], "$[1]"),
        (float("nan"), float("nan"), None),
        ("x" * 300, "y", "$"),
    ],
)
def test_json_is_compared_as_values(live: Any, copy: Any, place: str | None) -> None:
    assert difference(told(200, json.dumps(live).encode()), told(200, json.dumps(copy, indent=1).encode())) == place


def test_json_that_nests_beyond_all_measure_is_compared_as_bytes() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert difference(told(200, deep), told(200, deep[:-1] + b" ")) == "byte 199999 of the body"


def test_json_that_was_not_kept_whole_is_compared_as_bytes() -> None:
    assert difference(told(200, b"[1, 2", False), told(200, b"[1, 3", False)) == "byte 4 of the body"
    assert difference(told(200, b"[1]", False), told(200, b"[1]", False)) is None
