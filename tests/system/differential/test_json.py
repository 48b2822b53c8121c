"""JSON in and out: models and what they refuse, root inputs, defaults, bodies and media types of every kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.differential.pair import Pair

ADA = {"name": "Ada"}

ANSWERED = [
    ("greet", {"person": ADA}, {"text": "hello good", "person": ADA | {"age": 7, "tags": []}, "score": 0.1}),
    ("greet", {"person": {"name": "é\u2028"}, "unknown": 1}, None),
    ("greet", {"person": ADA | {"age": "3"}, "text": "yo", "mood": "bad"}, None),
    ("add", {"a": 1}, 3),
    ("add", {"a": "1", "b": 4.0}, 5),
    ("add", {"a": 12345678901234567890123}, 12345678901234567890125),
    ("nothing", {}, None),
    ("nothing", {"a": 1}, None),
    ("anything", {"value": [1, {"a": None}]}, [1, {"a": None}]),
    ("root", ADA, ADA | {"age": 7, "tags": []}),
    ("root_text", "abc", None),
    ("root_list", [1, 2], [2, 1]),
    ("keywords", {"kwargs": {"a": 1, "b": [2]}}, {"a": 1, "b": [2]}),
    ("positional", {"args": [1, 2]}, [[1, 2]]),
    ("specified", ADA | {"age": 9}, ADA | {"age": 9, "tags": []}),
    ("optional", {}, None),
    ("optional", {"word": None}, None),
    ("deep/er", {}, [1]),
    ("deep/er?a=9", {"a": 5}, [5]),
    ("", {"a": 4}, -4),
    ("itself", {"a": 2}, 42),
]

REFUSED = [
    ("greet", {}, ["person"], "missing"),
    ("greet", None, ["person"], "missing"),
    ("greet", [1], [], "model_type"),
    ("greet", "x", [], "model_type"),
    ("greet", {"person": ADA | {"age": -1}}, ["person", "age"], "greater_than_equal"),
    ("greet", {"person": ADA, "mood": "ugly"}, ["mood"], "literal_error"),
    ("greet", {"person": {"age": "x"}, "text": 3}, ["person", "name"], "missing"),
    ("add", {"a": 1.5}, ["a"], "int_from_float"),
    ("add", {"b": 1}, ["a"], "missing"),
    ("anything", {}, ["value"], "missing"),
    ("root", {}, ["name"], "missing"),
    ("root", "Ada", [], "model_type"),
    ("root_list", ["x"], ["root", 0], "int_parsing"),
    ("root_list", {}, ["root"], "list_type"),
    ("keywords", {"a": 1}, ["kwargs"], "missing"),
    ("positional", {"args": 1}, ["args"], "list_type"),
    ("specified", ADA | {"age": "x"}, ["age"], "int_parsing"),
    ("optional", {"word": 1}, ["word"], "string_type"),
    ("unsuitable", {}, ["root"], "int_parsing"),  # what the method returned
]


@pytest.mark.parametrize(("method", "body", "value"), ANSWERED)
def test_arguments_are_read_and_results_written_alike(pair: Pair, method: str, body: Any, value: Any) -> None:
    answer = pair.both(200, "wide", "POST", f"/{method}", json=body)
    if value is not None:
        assert json.loads(answer.body) == value


@pytest.mark.parametrize(("method", "body", "place", "kind"), REFUSED)
def test_what_pydantic_refuses_is_the_same_400(pair: Pair, method: str, body: Any, place: list[Any], kind: str) -> None:
    answer = pair.both(400, "wide", "POST", f"/{method}", json=body)
    first = json.loads(answer.body)["detail"][0]
    assert (first["loc"], first["type"]) == (place, kind)


def test_json_calls_take_the_lean_lane(pair: Pair) -> None:
    """Else this file compares BentoML's application with itself. The lane alone says how long the method took."""
    assert "infer;dur=" in pair.send("torpor", "wide", "POST", "/add", json={"a": 1}).headers["server-timing"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"{"),
        (400, b"\xff\xfe"),
        (400, b"null"),
        (400, b'{"a": 1}{'),
        (400, b'{"a": NaN}'),
        (400, b'{"a": 1e400}'),
        (400, b"[" * 2000),
        (200, b'  {"a": 1}  '),
        (200, b'{"a":1,"a":2}'),
        (200, b'{"a": 1, "padding": "' + b"x" * 3_000_000 + b'"}'),
    ],
)
def test_bodies_good_and_bad_are_judged_alike(pair: Pair, status: int, body: bytes) -> None:
    pair.both(status, "wide", "POST", "/add", content=body)
    pair.both(status, "wide", "POST", "/add", content=body, headers={"content-type": "application/json"})


def test_a_missing_body_is_an_empty_object(pair: Pair) -> None:
    assert pair.both(200, "wide", "POST", "/deep/er").body == b"[1]"
    assert pair.both(200, "wide", "POST", "/").body == b"-3"
    assert pair.both(200, "wide", "POST", "/nothing").body == b"null"
    pair.both(400, "wide", "POST", "/root")
    pair.both(400, "wide", "POST", "/root_list")
    pair.both(200, "wide", "POST", "/root_text")


def test_a_body_in_pieces_and_one_that_claims_a_coding_are_read_alike(pair: Pair) -> None:
    pieces = {"content": lambda: iter([b'{"a"', b": 5}"])}
    assert pair.both(200, "wide", "POST", "/add", **pieces).body == b"7"
    pair.both(200, "wide", "POST", "/add", content=b'{"a": 1}', headers={"content-encoding": "gzip"})


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/json; charset=latin-1",
        "APPLICATION/JSON",
        "application/JSON; x=y",
        "application/json, text/plain",
        "",
        "garbage",
        "*/*",
        "application/octet-stream",
        "application/xml",
        "image/png",
        "Application/Vnd.Bentoml+Pickle",
        "application/vnd.bentoml.stream+pickle",
    ],
)
def test_json_under_another_media_type_is_still_json(pair: Pair, media_type: str) -> None:
    answer = pair.both(200, "wide", "POST", "/add", content=b'{"a": 1}', headers={"content-type": media_type})
    assert answer.body == b"3"


def test_forms_are_arguments(pair: Pair) -> None:
    assert pair.both(200, "wide", "POST", "/add", data={"a": "5", "b": "3"}).body == b"8"
    pair.both(400, "wide", "POST", "/add", data={"b": "3"})
    pair.both(400, "wide", "POST", "/text", data={"word": "3"})  # a number, as the form's JSON
    assert pair.both(200, "wide", "POST", "/text", data={"word": "hi"}).body == b"hihi"
    assert pair.both(200, "wide", "POST", "/text", files={"word": ("w.txt", b"hi")}).body == b"hihi"
    parts = {"person": (None, json.dumps(ADA)), "text": (None, "yo")}
    assert b"yo good" in pair.both(200, "wide", "POST", "/greet", files=parts).body


def test_forms_that_are_none_are_judged_alike(pair: Pair) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    pair.both(400, "wide", "POST", "/add", content=b'{"a": 1}', headers=form)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    pair.both(400, "wide", "POST", "/greet", content=b"--x\r\nbroken", headers=broken)
    pair.both(500, "wide", "POST", "/add", content=b'{"a": 1}', headers={"content-type": "multipart/form-data"})


@pytest.mark.parametrize("parameter", ["", "; a=b"])
def test_pickle_is_refused(pair: Pair, parameter: str) -> None:
    pickle = {"content-type": "application/vnd.bentoml+pickle" + parameter}
    answer = pair.both(415, "wide", "POST", "/add", content=b"\x80\x04N.", headers=pickle)
    assert b"not allowed" in answer.body


def test_text_bytes_and_typed_results_have_their_media_types(pair: Pair) -> None:
    assert pair.call(200, "wide", "text", word="ab").header("content-type") == "text/plain; charset=utf-8"
    assert pair.both(200, "wide", "POST", "/root_text", content=b"abc").body == b"ABC"
    assert pair.call(200, "wide", "binary").body == bytes(range(200, 256))
    assert pair.call(200, "wide", "typed").header("content-type") == "text/markdown; charset=utf-8"
    assert pair.call(200, "wide", "optional", word="x").body == b"x"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid", 400),
        ("missing", 404),
        ("unavailable", 503),
        ("teapot", 418),
        ("forbidden", 403),
        ("unauthorized", 401),
        ("plain", 500),
        ("validation", 400),
        ("unknown to the method", 500),
    ],
)
def test_errors_of_the_method_are_answered_alike(pair: Pair, kind: str, status: int) -> None:
    pair.call(status, "wide", "raises", kind=kind)


def test_an_unexpected_error_tells_the_caller_nothing(pair: Pair) -> None:
    assert pair.call(200, "wide", "divide", a=1, b=2).body == b"0.5"
    assert b"ZeroDivision" not in pair.call(500, "wide", "divide", a=1, b=0).body
