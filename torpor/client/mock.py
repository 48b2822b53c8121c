"""A platform for users' tests: endpoints as functions, no process and no port."""

from __future__ import annotations

import email.policy
import inspect
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from email.parser import BytesParser
from itertools import chain
from typing import Any

import httpx

import torpor
from torpor.client.connection import later
from torpor.client.payload import encoded
from torpor.errors import EndpointNotFound, NotFound, TorporError
from torpor.wire import API, COLD_START, ENDPOINTS, EndpointState, EndpointView, EventView, RevisionView, RungView

Function = Callable[..., Any]

# Of one endpoint: (request's method, kind, action).
MOCKED = (
    ("GET", "endpoints", ""),
    ("DELETE", "endpoints", ""),
    ("POST", "endpoints", "wake"),
    ("POST", "endpoints", "sleep"),
    ("POST", "endpoints", "terminate"),
    ("POST", "endpoints", "start"),
    ("GET", "endpoints", "logs"),
    ("GET", "endpoints", "revisions"),
    ("GET", "endpoints", "events"),
)
SOON = {"wake": EndpointState.AWAKE, "sleep": EndpointState.ASLEEP, "start": EndpointState.ASLEEP}


class MockTransport(httpx.MockTransport):
    """`torpor.Client(transport=torpor.MockTransport({"embedder": {"embed": lambda texts: ...}}))`, async too.

    A function gets the call's arguments as the service's method would, files as bytes. What it returns is the answer:
    JSON's kinds, a numpy array, text, bytes; a generator function's is streamed. A TorporError that it raises is the
    error that the client raises again; any other exception goes through to the test. A first parameter that is
    positional-only is the whole body, as in BentoML.

    `calls` lists (endpoint, method, arguments by name). Endpoints sleep, wake, are terminated, started and deleted; the
    first call after a sleep is a cold start. Each has one revision: deploys, and what goes from one revision to
    another, are not mocked.
    """

    def __init__(self, endpoints: Mapping[str, Mapping[str, Function]]) -> None:
        super().__init__(self._answer)
        self._endpoints = dict(endpoints)
        self._views = {name: view(name, functions) for name, functions in endpoints.items()}
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        try:
            path = request.url.path
            if path.startswith(API):
                return self._controlled(request, path.removeprefix(API))
            name, _, method = path.removeprefix(ENDPOINTS + "/").partition("/")
            return self._called(request, name, method)
        except TorporError as error:
            after = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
            return httpx.Response(error.status or 500, json=error.body(), headers=after)

    def _controlled(self, request: httpx.Request, path: str) -> httpx.Response:
        kind, name, action, *more = [*path.strip("/").split("/"), "", "", ""]
        asked = (request.method, kind, action if name else None)
        if asked == ("GET", "status", None):
            counts = {"endpoints": len(self._views), "replicas": 0, "memory": None}
            return answered({"version": torpor.__version__, "pid": 0, "started_at": 0.0, "data": "", **counts})
        if asked == ("GET", "endpoints", None):
            return answered({"endpoints": list(self._views.values())})
        if asked not in MOCKED or any(more):
            raise NotFound(f"{request.method} {path} is not mocked\ntest it against `torpor up`")
        found = self._view(name)
        if action in ("logs", "revisions", "events"):
            return read(found, action)
        if request.method == "DELETE":
            del self._views[name], self._endpoints[name]
        elif action:
            changed(found, action)
        if action == "start":
            return httpx.Response(200, json={"event": "deployed", "endpoint": found})
        return answered(found)

    def _called(self, request: httpx.Request, name: str, method: str) -> httpx.Response:
        found = on_the_air(self._view(name))
        function = self._endpoints[name].get(method)
        if function is None:
            raise NotFound(f"{name} has no method {method!r}\nthe MockTransport has {sorted(self._endpoints[name])}")
        args, kwargs = arguments(function, request)
        self.calls.append((name, method, dict(inspect.signature(function).bind(*args, **kwargs).arguments)))
        cold = found["state"] == EndpointState.ASLEEP
        found["state"] = str(EndpointState.AWAKE)
        found["calls"] += 1
        found["cold_starts"] += cold
        found["last_call_at"] = time.time()
        return answered(function(*args, **kwargs), {COLD_START: str(cold).lower()})

    def _view(self, name: str) -> EndpointView:
        if name not in self._views:
            raise EndpointNotFound(f"no endpoint is called {name!r}\nthe MockTransport has {sorted(self._views)}")
        return self._views[name]


def on_the_air(found: EndpointView) -> EndpointView:
    """Raises EndpointNotFound for one that is terminated."""
    if found["terminated"]:
        name = found["name"]
        raise EndpointNotFound(f"endpoint {name!r} is terminated\nits owner starts it again: torpor start {name}")
    return found


def changed(found: EndpointView, action: str) -> None:
    """Waking, sleeping, terminating and starting, as the view tells it afterwards."""
    if action in ("wake", "sleep"):
        on_the_air(found)
    if action in ("terminate", "start"):
        found["terminated"] = action == "terminate"
    found["state"] = str(SOON.get(action, EndpointState.TERMINATED))


def read(found: EndpointView, what: str) -> httpx.Response:
    """Its logs, of which there are none, its one revision, and its one event."""
    if what == "logs":
        return httpx.Response(200, text="")
    number, at = found["revision"], found["created_at"]
    if what == "events":
        return answered({"events": [EventView(at=at, kind="deployed", text=f"revision {number} is live")]})
    revision = RevisionView(
        number=number,
        bento=found["bento"],
        created_at=at,
        creator="",
        state=["terminated" if found["terminated"] else "live"],
        env=[],
        secrets=[],
        access=None,
        settings={},
    )
    return answered({"revisions": [revision]})


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A generator's chunks, for both clients."""

    def __init__(self, chunks: Iterator[str | bytes]) -> None:
        self._parts = (chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return later(self._parts)


def answered(value: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """A function's value as a replica answers it; `torpor.output` is the schema that a replica's service would have."""
    head = dict(headers or {})
    if isinstance(value, str):
        return httpx.Response(200, text=value, headers=head)
    if isinstance(value, bytes):
        return httpx.Response(200, content=value, headers=head | {"Content-Type": "application/octet-stream"})
    if isinstance(value, Iterator):
        first = next(value, b"")
        head["Content-Type"] = "text/event-stream" if isinstance(first, str) else "application/octet-stream"
        return httpx.Response(200, stream=Stream(chain((first,), value)), headers=head)
    tensor = hasattr(value, "dtype") and hasattr(value, "shape")
    output = {"type": "tensor", "dtype": str(value.dtype)} if tensor else {}
    head["Content-Type"] = "application/json"
    return httpx.Response(200, content=encoded(value), headers=head, extensions={"torpor.output": output})


def arguments(function: Function, request: httpx.Request) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments as a replica finds them in the request."""
    body, media_type = request.read(), request.headers.get("content-type", "")
    values: Any
    if media_type.startswith("multipart/"):
        values = form(media_type, body)
    elif media_type.startswith("application/json"):
        values = json.loads(body)
    else:
        values = body.decode() if media_type.startswith("text/") else body
    if is_root(function):
        return (values,), {}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            args = [*(kwargs.pop(name) for name in list(kwargs)), *values.get("args", ())]
        elif each.kind is each.VAR_KEYWORD:
            kwargs |= values.get("kwargs", {})
        elif each.name in values:
            kwargs[each.name] = values[each.name]
    return tuple(args), kwargs


def form(media_type: str, body: bytes) -> dict[str, Any]:
    """A multipart form's fields, and its files as bytes: several of one name as a list."""
    head = f"Content-Type: {media_type}\r\n\r\n".encode()
    parts = BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    out: dict[str, Any] = {}
    for part in parts.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content: Any = part.get_payload(decode=True)  # bytes
        value = json.loads(content) if part.get_filename() is None else content
        if name in out:
            out[name] = [*out[name], value] if isinstance(out[name], list) else [out[name], value]
        else:
            out[name] = value
    return out


def view(name: str, functions: Mapping[str, Function]) -> EndpointView:
    return EndpointView(
        name=name,
        state=str(EndpointState.AWAKE),
        revision=1,
        bento=f"{name}:mock",
        url=f"http://mock{ENDPOINTS}/{name}",
        own_url=None,
        created_at=time.time(),
        calls=0,
        cold_starts=0,
        in_flight=0,
        parked=0,
        last_call_at=None,
        replicas=[],
        rung=RungView(name="warm", since=None, why="it is a mock", next="it stays", ladder=["warm"]),
        template=None,
        no_template=None,
        settings={},
        learned={"modules": [], "facts": {}, "phases": {}},
        schema={"routes": [route(each, function) for each, function in functions.items()]},
        last_error=None,
        variants=[],
        access=None,
        secrets=[],
        terminated=False,
    )


def route(name: str, function: Function) -> dict[str, Any]:
    """What BentoML's schema would say of the function's parameters."""
    streams = inspect.isgeneratorfunction(function)
    output = {"is_stream": True} if streams else {}
    if is_root(function):
        return {"name": name, "route": f"/{name}", "input": {"root_input": True}, "output": output}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            properties["args"] = {"type": "array"}
        elif parameter.kind is parameter.VAR_KEYWORD:
            properties["kwargs"] = {"type": "object", "additionalProperties": True}
        else:
            properties[parameter.name] = {}
            required += [parameter.name] if parameter.default is parameter.empty else []
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "route": f"/{name}", "input": schema, "output": output}


def is_root(function: Function) -> bool:
    """Whether its first parameter is positional-only and so the whole body."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and first.kind is first.POSITIONAL_ONLY
