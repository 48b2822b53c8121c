"""A platform for users' tests: endpoints as functions, no process and no port."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from torpor.errors import EndpointNotFound, TorporError
from torpor.wire import API, COLD_START, ENDPOINTS


class MockTransport(httpx.MockTransport):
    """`torpor.Client(transport=torpor.MockTransport({"embedder": {"embed": lambda texts: ...}}))`.

    A function gets the call's arguments by name; what it returns is the answer, a TorporError that it raises is the
    error that the client raises again. `calls` lists (endpoint, method, arguments).
    """

    def __init__(self, endpoints: Mapping[str, Mapping[str, Callable[..., Any]]]) -> None:
        super().__init__(self._answer)
        self._endpoints = endpoints
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._answered(request)
        except TorporError as error:
            after = {} if error.retry_after is None else {"Retry-After": str(int(error.retry_after))}
            return httpx.Response(error.status, json=error.body(), headers=after)

    def _answered(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        prefix = API + ENDPOINTS if path.startswith(API) else ENDPOINTS
        name, _, method = path.removeprefix(prefix + "/").partition("/")
        if path == API + ENDPOINTS:
            return httpx.Response(200, json={"endpoints": [self._view(each) for each in self._endpoints]})
        if name not in self._endpoints:
            raise EndpointNotFound(f"no endpoint is called {name!r}\nthe MockTransport has {sorted(self._endpoints)}")
        if prefix != ENDPOINTS:
            return httpx.Response(200, json=self._view(name))
        arguments = json.loads(request.content or b"{}")
        self.calls.append((name, method, arguments))
        value = self._endpoints[name][method](**arguments)
        if hasattr(value, "tolist"):
            value = value.tolist()
        return httpx.Response(200, json=value, headers={COLD_START: "false"})

    def _view(self, name: str) -> dict[str, Any]:
        routes = [
            {"name": each, "route": f"/{each}", "input": {"type": "object", "additionalProperties": True}, "output": {}}
            for each in self._endpoints[name]
        ]
        return {"name": name, "state": "awake", "schema": {"routes": routes}}
