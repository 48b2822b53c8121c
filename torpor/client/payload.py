"""A method's arguments as a request, and its answer as a value, by the endpoint's schema (BentoML's schema.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, cast

from torpor.client.flow import Answer, Ask, Form, Upload
from torpor.errors import BadRequest, InvalidService
from torpor.wire import ENDPOINTS, QUEUE_WITHIN

Schema = Mapping[str, Any]
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Method:
    """One API method of an endpoint."""

    endpoint: str
    name: str
    route: str
    input: Schema
    output: Schema

    @property
    def streams(self) -> bool:
        return bool(self.output.get("is_stream"))

    @property
    def binary(self) -> bool:
        """Whether the answer is bytes, whatever media type it says: BentoML calls bytes text/plain."""
        return self.output.get("type") == "file" or self.output.get("format") == "binary"

    def ask(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue_within: float | None) -> Ask:
        """The request of a call. Raises BadRequest for arguments that the method does not take."""
        body, headers = self._root(args, kwargs) if self.input.get("root_input") else self._named(args, kwargs)
        if queue_within is not None:
            headers = {**headers, QUEUE_WITHIN: f"{queue_within:g}"}
        return Ask("POST", f"{ENDPOINTS}/{self.endpoint}{self.route}", headers=headers, body=body)

    def _root(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes | Upload, dict[str, str]]:
        """The one positional-only argument is the whole body; an object's fields may be given by name too."""
        if kwargs and not args and self.input.get("type") == "object":
            args, kwargs = (kwargs,), {}
        if kwargs or len(args) != 1:
            raise BadRequest(f"{self.name} takes exactly one positional argument\ncall .{self.name}(value)")
        (value,) = args
        if is_file(self.input) or is_content(value):
            return upload(value), {}
        if self.input.get("type") == "string" and isinstance(value, str):
            return value.encode(), {"Content-Type": "text/plain; charset=utf-8"}
        return encoded(value), JSON

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes | Form, dict[str, str]]:
        values = self._bound(args, kwargs)
        files = {name for name, value in values.items() if self._is_sent_as_file(name, value)}
        if not files:
            return encoded(values), JSON
        # Text too is sent as JSON: BentoML parses every field that it can, so that a bare 123 would arrive as a number.
        fields = {name: encoded(value).decode() for name, value in values.items() if name not in files}
        return Form(fields, [(name, upload(each)) for name in files for each in many(values[name])]), {}

    def _is_sent_as_file(self, name: str, value: Any) -> bool:
        schema = self.input.get("properties", {}).get(name, {})
        if value is None:
            return False
        return is_file(schema) or (not schema and all(map(is_content, many(value))) and value != [])

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name. BentoML lists what `*args` and `**kwargs` take as parameters of these names."""
        properties = self.input.get("properties", {})
        names = list(properties)
        takes = f"{self.name} takes {', '.join(names) or 'nothing'}"
        rest: dict[str, Any] = {}
        if properties.get("args", {}).get("type") == "array" and "args" not in kwargs:
            first = names.index("args")
            args, rest["args"] = args[:first], args[first:]
        extra = [name for name in kwargs if name not in properties and not self.input.get("additionalProperties")]
        if properties.get("kwargs", {}).get("additionalProperties") and "kwargs" not in kwargs:
            rest["kwargs"] = {name: kwargs[name] for name in extra}
            kwargs, extra = {name: value for name, value in kwargs.items() if name not in extra}, []
        if len(args) > len(names):
            raise BadRequest(f"{len(args)} positional arguments were given\n{takes}")
        values = dict(zip(names, args, strict=False)) | rest
        twice = [name for name in kwargs if name in values]
        missing = [n for n in self.input.get("required", ()) if n not in values and n not in kwargs]
        for what, which in (("unknown", extra), ("given twice", twice), ("missing", missing)):
            if which:
                raise BadRequest(f"{what}: {', '.join(which)}\n{takes}")
        return {**values, **kwargs}

    def value(self, answer: Answer) -> Any:
        """numpy arrays where the schema says tensor, bytes where it says file, text, or parsed JSON."""
        output = answer.output or self.output
        if self.binary:
            return answer.content
        if answer.media_type == "application/json":
            return as_array(answer.body, output) if output.get("type") == "tensor" else answer.body
        if answer.media_type.startswith("text/"):
            return answer.content.decode(errors="replace")
        return answer.content


def methods(endpoint: str, schema: Schema) -> dict[str, Method]:
    """All methods of an endpoint by name."""
    routes = schema.get("routes")
    if not isinstance(routes, list):
        raise InvalidService(f"endpoint {endpoint!r} has no schema\ndeploy it again")
    return {r["name"]: Method(endpoint, r["name"], r["route"], r["input"], r["output"]) for r in routes}


def is_file(schema: Schema) -> bool:
    """Whether a parameter takes files, one or several."""
    if schema.get("type") == "file":
        return True
    nested = [schema.get("items", {}), *schema.get("anyOf", ())]
    return any(is_file(each) for each in nested if each)


def is_content(value: Any) -> bool:
    """Whether a value is a file's: a path, bytes, an open file."""
    return isinstance(value, (PurePath, bytes, bytearray, memoryview)) or hasattr(value, "read")


def many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def upload(value: Any) -> Upload:
    """A path (text too), bytes, or an open file; the last is sent from its start. Raises BadRequest for another."""
    if isinstance(value, (str, PurePath)):
        path = Path(value)
        if not path.is_file():
            raise BadRequest(f"{path} is not a file that can be read\ngive a readable file's path")
        return Upload(path.name, path)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Upload("file", bytes(value))
    if not hasattr(value, "read"):
        raise BadRequest(f"a {type(value).__name__} cannot be sent as a file\ngive a path, bytes, or an open file")
    name = getattr(value, "name", "file")
    name = PurePath(name).name if isinstance(name, str) else "file"
    if isinstance(value.read(0), str):  # opened as text
        return Upload(name, value.read().encode())
    return Upload(name, cast(IO[bytes], value))


def encoded(value: Any) -> bytes:
    """JSON. Arrays become lists, pydantic models their fields, bytes text. NaN goes as BentoML takes it: NaN."""
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy, torch
        return value.tolist()
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadRequest("JSON cannot carry bytes that are not UTF-8\nhave the method take a Path") from None
    if isinstance(value, (set, frozenset, Mapping)):
        return dict(value) if isinstance(value, Mapping) else list(value)
    if isinstance(value, PurePath):
        return str(value)
    raise BadRequest(f"a {type(value).__name__} cannot be sent as JSON\ngive numbers, text, lists, dicts or arrays")


def as_array(value: Any, schema: Schema) -> Any:
    """A numpy array, or the nested lists where numpy is not installed."""
    try:
        import numpy
    except ImportError:
        return value
    return numpy.asarray(value, dtype=schema.get("dtype"))
