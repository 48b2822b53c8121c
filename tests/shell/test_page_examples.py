"""What the pages make of distrusted values: commands from a schema, marks of revisions, events, and texts."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from router.api.pages import page
from router.api.pages.curl import examples
from router.api.pages.deployed import EVENTS_MAX, Condition, Now, Past, grouped, marks
from router.api.pages.words import LINE_MAX, plain, when
from router.core.catalog import Registered
from router.core.settings import Settings
from router.core.split import Rule, Variant

ADDRESS = "http://127.0.0.1:7400"


def taking(**input: Any) -> dict[str, Any]:
    return {"routes": [{"name": "method", "route": "/method", "input": input, "output": {"type": "string"}}]}


def command(schema: dict[str, Any], asks: bool = False) -> list[str]:
    """The words of the first command, as a shell reads them."""
    script = f"printf '%s\\0' {examples(schema, ADDRESS, asks)[0].command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def sent(properties: dict[str, Any], required: list[str], **more: Any) -> Any:
    words = command(taking(properties=properties, required=required, type="object", **more))
    assert words[:4] == ["curl", "-s", f"{ADDRESS}/method", "-H"]
    return json.loads(words[words.index("-d") + 1])


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "hello"),
        ({"type": "string", "default": "it's"}, "it's"),
        ({"enum": ["low", "high"]}, "low"),
        ({"const": 3}, 3),
        ({"type": "number", "examples": [2.5]}, 2.5),
        ({"type": "boolean"}, True),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "minItems": 10**9, "items": {"type": "null"}}, [None] * 8),
        ({"type": "tensor", "shape": [2, -1], "dtype": "int64"}, [[0], [0]]),
        ({"type": "tensor", "shape": [10**9, 10**9], "dtype": "float32"}, [[0.0] * 8] * 8),
        ({"type": "tensor"}, [0.0]),
        ({"$ref": "#/$defs/Loop"}, {"next": None}),
        ({}, "hello"),
        ({"type": 3, "anyOf": 4, "enum": "x", "examples": {}}, "hello"),
    ],
)
def test_an_example_has_a_value_of_each_type(schema: dict[str, Any], value: Any) -> None:
    loop = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Loop"}}}
    found = sent({"it": schema}, ["it"], **{"$defs": {"Loop": loop}})["it"]
    if "$ref" in schema:
        assert set(found) == {"next"}, "what refers to itself ends somewhere"
    else:
        assert found == value


def test_an_example_has_the_fields_that_a_call_needs_and_all_where_it_needs_none() -> None:
    properties = {"a": {"type": "integer"}, "b": {"type": "integer", "default": 5}}
    assert sent(properties, ["a"]) == {"a": 1}
    words = command(taking(properties=properties, required=[], type="object"))
    assert json.loads(words[-1]) == {"a": 1, "b": 5}


def test_nothing_of_a_schema_gets_out_of_its_quotes() -> None:
    evil = "'; touch /tmp/x #`$(id)`"
    properties = {evil: {"type": "string", "default": evil}}
    route = {"name": evil, "route": f"/{evil}", "input": {"properties": properties, "required": [evil]}, "output": {}}
    words = command({"routes": [route]})
    assert words[2] == f"{ADDRESS}/{evil}"
    assert json.loads(words[-1]) == {evil: evil}
    assert len(words) == 7


def test_no_schema_makes_curl_read_a_file_of_its_choice() -> None:
    text = command(taking(type="string", root_input=True, default="@/etc/passwd"))
    assert text[-2:] == ["--data-raw", "@/etc/passwd"], "curl takes an @ as text there"
    file, word = {"type": "file"}, {"type": "string", "default": "@/etc/passwd"}
    properties = {"ok": file, "word": word, "x=@/etc/passwd;": file}
    form = command(taking(properties=properties, required=list(properties)))
    assert form[3:] == ["-F", "ok=@file.bin", "--form-string", 'word="@/etc/passwd"']


def test_a_stream_a_task_a_file_and_a_token_have_their_flags() -> None:
    schema = taking(properties={}, type="object")
    schema["routes"][0] |= {"is_task": True, "output": {"type": "string", "is_stream": True}}
    assert command(schema)[2] == f"{ADDRESS}/method/submit"
    assert command(schema)[-1] == "-N"
    schema["routes"][0]["output"] = {"type": "file", "format": "image"}
    assert command(schema)[-2:] == ["-o", "answer.png"]
    assert '-H "Authorization: Bearer $TORPOR_TOKEN"' in examples(schema, ADDRESS, True)[0].command


@pytest.mark.parametrize(
    "schema", [{}, {"routes": "no"}, {"routes": [3]}, {"routes": [], "paths": {"/": {"mounted": True}}}]
)
def test_without_methods_the_root_is_asked_for(schema: dict[str, Any]) -> None:
    assert command(schema) == ["curl", "-s", f"{ADDRESS}/"]


def test_revisions_are_marked_with_what_they_get() -> None:
    live = Registered("e", 3, "b:1", {}, Settings(), 0.0)
    variants = (
        Variant("next", 4, Rule("header", "x-user", 20)),
        Variant("later", 5, Rule("header", "x-user", 5)),
        Variant("staging", 3, Rule("address")),
        Variant("dark", 4, Rule("shadow", "", 10)),
    )
    found = {number: marks(number, live, variants) for number in (2, 3, 4, 5)}
    assert found == {
        2: [],
        3: ["live, 75 %", "staging"],
        4: ["next, 20 %", "dark in the shadow, 10 %"],
        5: ["later, 5 %"],
    }
    assert marks(3, live, ()) == ["live"]


def test_an_installer_s_lines_are_one_event_and_the_newest_comes_first() -> None:
    history = [(1.0, "deploy", "a"), (2.0, "build", "x"), (3.0, "build", "y"), (4.0, "deploy", "b")]
    assert [(each.at, each.texts) for each in grouped(history)] == [(4.0, ["b"]), (2.0, ["x", "y"]), (1.0, ["a"])]
    many = grouped([(float(number), "woke", "x") for number in range(EVENTS_MAX + 5)])
    assert (len(many), many[0].at) == (EVENTS_MAX, EVENTS_MAX + 4.0)


def test_text_of_others_is_what_can_be_seen_of_it() -> None:
    unseen = "\N{REPLACEMENT CHARACTER}"
    assert plain("a\x1b[1;31mred\x1b[0m\x1b]0;title\x07 b") == "ared b"
    assert plain("one\r\ntwo\tthree\rfour") == f"one\ntwo\tthree{unseen}four"
    assert plain("\x00\x07\u202e\u2066\x9b") == unseen * 5
    assert plain("x" * (LINE_MAX + 1) + "\nshort") == "x" * LINE_MAX + " …\nshort"


def test_an_instant_is_told_in_utc() -> None:
    assert (
        str(when(0.0)) == '<time datetime="1970-01-01T00:00:00Z"><span>1970-01-01</span> <span>00:00:00</span></time>'
    )
    assert str(when(None)) == "never"


def test_an_installer_s_lines_are_shown_as_text_while_it_works() -> None:
    now = Now(
        name="e",
        condition=Condition("building", "busy", "The environment of b:1 is being made ready."),
        under_way=True,
        view=None,
        address=None,
        asks=False,
        examples=[],
        env=[],
        fault=None,
        installing=["Downloading <b>torch</b>", "Building \x1b[32mwheel\x1b[0m"],
        beside=[],
        copies={},
    )
    past = Past(made=[], older=3, told=grouped([(1.0, "build", "<i>a</i>"), (2.0, "build", "b")]), log=[])
    text = bytes(page("deployment.html", now=now, past=past, under_way=True).body).decode()
    assert "Downloading &lt;b&gt;torch&lt;/b&gt;\nBuilding wheel</pre>" in text
    assert "2 lines of the installer</summary>" in text
    assert "&lt;i&gt;a&lt;/i&gt;\nb</pre>" in text
    assert "<b>" not in text
    assert "<i>" not in text
