"""Commands that call an endpoint, made from its schema (BentoML's schema.json): to be copied into a shell.

The schema is the service's own text: everything of it is quoted for the shell, and none of it names a file to curl.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METHODS_MAX = 20
DEPTH_MAX = 6  # of nested values
ITEMS_MAX = 8  # of one axis of a tensor: above it a command is no example any more
TOKEN = '"Authorization: Bearer $TORPOR_TOKEN"'  # in double quotes: the shell puts the token in
JSON = "Content-Type: application/json"
TEXT = "Content-Type: text/plain; charset=utf-8"
SAMPLES: dict[str, Any] = {"string": "hello", "integer": 1, "number": 0.5, "boolean": True, "null": None}
FIELD = re.compile(r"\w+")  # of a form: curl reads a file that the name of another could name
SUFFIXES = {"image": "png", "audio": "wav", "video": "mp4"}

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One method, and the command that calls it."""

    method: str
    command: str


def examples(schema: Schema, address: str, asks: bool) -> list[Example]:
    """Of all methods in the schema's order, or of what is mounted where there are none. `asks`: for a token."""
    found = [
        Example(str(route.get("name", "")), call(route, address, asks))
        for route in list_of(schema.get("routes"))[:METHODS_MAX]
        if isinstance(route, Mapping)
    ]
    if found:
        return found
    paths = schema.get("paths")
    mounted = [str(path) for path in paths] if isinstance(paths, Mapping) else []
    return [Example(path, joined(address + path, opening(asks))) for path in (mounted or ["/"])[:METHODS_MAX]]


def call(route: Schema, address: str, asks: bool) -> str:
    """A method's command."""
    taken, given = object_of(route.get("input")), object_of(route.get("output"))
    path = str(route.get("route", "/")) + ("/submit" if route.get("is_task") else "")
    parts = [*opening(asks), *body(taken)]
    if given.get("is_stream"):
        parts.append("-N")
    if given.get("type") == "file":
        parts.append(f"-o {shlex.quote('answer.' + suffix(given))}")
    return joined(address + path, parts)


def opening(asks: bool) -> list[str]:
    return [f"-H {TOKEN}"] if asks else []


def joined(url: str, parts: list[str]) -> str:
    return " \\\n  ".join([f"curl -s {shlex.quote(url)}", *parts])


def body(taken: Schema) -> list[str]:
    """The arguments of what a method takes: 1 a file or a text as the whole body, 2 a form where there are files,
    3 JSON.
    """
    if taken.get("root_input"):
        if is_file(taken):  # 1
            kind = "image/png" if suffix(taken) == "png" else "application/octet-stream"
            return [header(f"Content-Type: {kind}"), f"--data-binary @file.{suffix(taken)}"]
        if taken.get("type") == "string":
            return [header(TEXT), f"--data-raw {shlex.quote(str(sample(taken, taken)))}"]
    fields = object_of(taken.get("properties"))
    if any(is_file(object_of(each)) for each in fields.values()):  # 2
        named = [(name, object_of(each)) for name, each in asked(taken, fields) if FIELD.fullmatch(name)]
        return [form(name, each, taken) for name, each in named]
    return [header(JSON), f"-d {shlex.quote(as_json(sample(taken, taken)))}"]  # 3


def asked(taken: Schema, fields: Schema) -> list[tuple[str, Any]]:
    """The fields that a call has to have; all of them where it has to have none."""
    required = set(map(str, list_of(taken.get("required"))))
    return [(name, each) for name, each in fields.items() if name in required] or list(fields.items())


def form(name: str, field: Schema, root: Schema) -> str:
    if is_file(field):
        return f"-F {shlex.quote(f'{name}=@file.{suffix(field)}')}"
    return f"--form-string {shlex.quote(f'{name}={as_json(sample(field, root))}')}"


def sample(schema: Schema, root: Schema, depth: int = 0) -> Any:
    """A value that the schema describes: 1 one that it names, 2 of what it refers to, 3 by its type."""
    if depth > DEPTH_MAX:
        return None
    for key in ("examples", "enum"):  # 1
        if named := list_of(schema.get(key)):
            return named[0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if isinstance(reference := schema.get("$ref"), str):  # 2
        meant = object_of(root.get("$defs")).get(reference.rpartition("/")[2])
        return sample(object_of(meant), root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        for each in list_of(schema.get(key)):
            if object_of(each).get("type") != "null":
                return sample(object_of(each), root, depth + 1)
    match schema.get("type") or ("object" if schema.get("properties") else None):  # 3
        case "array":
            count = max(1, min(ITEMS_MAX, whole(schema.get("minItems"), 1)))
            return [sample(object_of(schema.get("items")) or {"type": "string"}, root, depth + 1)] * count
        case "tensor":
            return tensor(schema)
        case "object":
            fields = object_of(schema.get("properties"))
            return {name: sample(object_of(each), root, depth + 1) for name, each in asked(schema, fields)}
        case str() as kind:
            return SAMPLES.get(kind)
    return "hello"


def tensor(schema: Schema) -> Any:
    """Nested zeros of its shape; an axis of any length has one item."""
    dtype = str(schema.get("dtype", "float32"))
    value: Any = False if dtype.startswith("bool") else 0 if "int" in dtype else 0.0
    axes = list_of(schema.get("shape")) or [1]
    for axis in reversed(axes[:DEPTH_MAX]):
        value = [value] * max(1, min(ITEMS_MAX, whole(axis, 1)))
    return value


def is_file(schema: Schema) -> bool:
    """Whether a parameter takes files, one or several."""
    nested = [schema.get("items"), *list_of(schema.get("anyOf"))]
    return schema.get("type") == "file" or any(is_file(each) for each in nested if isinstance(each, Mapping))


def suffix(schema: Schema) -> str:
    """Of a file that it takes or gives."""
    for each in (schema, object_of(schema.get("items")), *map(object_of, list_of(schema.get("anyOf")))):
        if found := SUFFIXES.get(str(each.get("format"))):
            return found
    return "bin"


def header(line: str) -> str:
    return f"-H {shlex.quote(line)}"


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def object_of(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}


def list_of(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
