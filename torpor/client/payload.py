"""A method's arguments as a request, and its answer as a value, by the endpoint's schema (BentoML's schema.json)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torpor.client.flow import Answer, Ask
from torpor.errors import BadRequest, InvalidService
from torpor.wire import ENDPOINTS, QUEUE_WITHIN


@dataclass(frozen=True, slots=True)
class Method:
    """One API method of an endpoint."""

    endpoint: str
    name: str
    route: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]

    @property
    def streams(self) -> bool:
        return bool(self.output.get("is_stream"))

    @property
    def parameters(self) -> list[str]:
        return list(self.input.get("properties", {}))

    def ask(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue_within: float | None) -> Ask:
        """The request of a call. Raises BadRequest for arguments that the method does not take."""
        path = f"{ENDPOINTS}/{self.endpoint}{self.route}"
        headers = {} if queue_within is None else {QUEUE_WITHIN: f"{queue_within:g}"}
        if self.input.get("root_input"):
            return Ask("POST", path, headers=headers, **self._root(args, kwargs))
        values = self._named(args, kwargs)
        properties = self.input.get("properties", {})
        files = [name for name in values if is_file(properties.get(name, {}))]
        if not files:
            return Ask("POST", path, headers=headers, json=plain(values))
        fields = {k: v if isinstance(v, str) else json.dumps(plain(v)) for k, v in values.items() if k not in files}
        parts = [(name, upload(each)) for name in files for each in many(values[name])]
        return Ask("POST", path, headers=headers, form=(fields, parts))

    def _root(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs or len(args) != 1:
            raise BadRequest(f"{self.name} takes exactly one positional argument\ncall .{self.name}(value)")
        if is_file(self.input):
            return {"content": upload(args[0])[1]}
        return {"json": plain(args[0])}

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self.parameters
        takes = f"{self.name} takes {', '.join(names) or 'nothing'}"
        if len(args) > len(names):
            raise BadRequest(f"{len(args)} positional arguments were given\n{takes}")
        values = dict(zip(names, args, strict=False))
        unknown = [name for name in kwargs if name not in names and not self.input.get("additionalProperties")]
        twice = [name for name in kwargs if name in values]
        missing = [n for n in self.input.get("required", ()) if n not in values and n not in kwargs]
        for what, which in (("unknown", unknown), ("given twice", twice), ("missing", missing)):
            if which:
                raise BadRequest(f"{what}: {', '.join(which)}\n{takes}")
        return {**values, **kwargs}

    def value(self, answer: Answer) -> Any:
        """numpy arrays where the schema says tensor, text, parsed JSON, or bytes."""
        if self.output.get("type") == "tensor" and answer.media_type == "application/json":
            return as_array(answer.body, self.output)
        if answer.media_type == "application/json":
            return answer.body
        if answer.media_type.startswith("text/"):
            return answer.content.decode()
        return answer.content


def methods(endpoint: str, schema: Mapping[str, Any]) -> dict[str, Method]:
    """All methods of an endpoint by name."""
    routes = schema.get("routes")
    if not isinstance(routes, list):
        raise InvalidService(f"endpoint {endpoint!r} has no schema\ndeploy it again")
    return {r["name"]: Method(endpoint, r["name"], r["route"], r["input"], r["output"]) for r in routes}


def is_file(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") == "file":
        return True
    nested = [schema.get("items", {}), *schema.get("anyOf", ())]
    return any(is_file(each) for each in nested if each)


def many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def upload(value: Any) -> tuple[str, bytes]:
    """(file name, content) of a path, bytes, or an open file."""
    if isinstance(value, (str, PurePath)):
        path = Path(value)
        try:
            return path.name, path.read_bytes()
        except OSError as error:
            raise BadRequest(f"{path} cannot be read: {error.strerror}\ngive a readable file") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "file", bytes(value)
    content = value.read()
    return os.path.basename(str(getattr(value, "name", "file"))), content.encode() if isinstance(
        content, str
    ) else content


def plain(value: Any) -> Any:
    """JSON's kinds: arrays become lists, pydantic models their fields."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def as_array(value: Any, schema: Mapping[str, Any]) -> Any:
    """A numpy array, or the nested lists where numpy is not installed."""
    try:
        import numpy
    except ImportError:
        return value
    return numpy.asarray(value, dtype=schema.get("dtype"))
