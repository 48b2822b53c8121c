"""The sync client: drives the flows over httpx."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

from torpor.client import flow
from torpor.client.bento import build, packed
from torpor.client.connection import (
    CONTROL_WITHIN,
    address,
    answer_of,
    cut_off,
    deployed,
    headers,
    options,
    translated,
)
from torpor.client.flow import Ask, Flow, Wait
from torpor.client.payload import Method, methods
from torpor.errors import BadRequest
from torpor.wire import API, EndpointView

T = TypeVar("T")

ANSWER_WITHIN = 600.0


class Client:
    """The platform at `url` ($TORPOR_URL, else this machine). Every method raises classes of `torpor.errors`.

    `answer_within`: seconds that a call may take in all, waits for a start and retries of what did not run included.
    `transport`: httpx's, for tests a `torpor.MockTransport`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        answer_within: float = ANSWER_WITHIN,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = address(url)
        self.answer_within = answer_within
        self._http = httpx.Client(base_url=self.url, headers=headers(token), transport=transport)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def endpoint(self, name: str, *, queue_within: float | None = None) -> Endpoint:
        """An endpoint's methods as methods. `queue_within`: seconds that a call may stay parked."""
        return Endpoint(self, name, queue_within)

    def status(self) -> dict[str, Any]:
        return cast(dict[str, Any], self._drive(flow.control("GET", "/status")))

    def list(self) -> list[EndpointView]:
        answer = self._drive(flow.control("GET", "/endpoints"))
        return cast("list[EndpointView]", answer["endpoints"])

    def get(self, name: str) -> EndpointView:
        return cast(EndpointView, self._drive(flow.control("GET", f"/endpoints/{name}")))

    def wake(self, name: str) -> EndpointView:
        """Returns when a replica is ready."""
        return cast(EndpointView, self._drive(flow.control("POST", f"/endpoints/{name}/wake")))

    def sleep(self, name: str, *, force: bool = False) -> EndpointView:
        """Returns when no replica runs. Raises Conflict while calls run, unless forced."""
        params = {"force": str(force).lower()}
        return cast(EndpointView, self._drive(flow.control("POST", f"/endpoints/{name}/sleep", params=params)))

    def delete(self, name: str) -> EndpointView:
        """Returns when the endpoint is gone and its calls are drained."""
        return cast(EndpointView, self._drive(flow.control("DELETE", f"/endpoints/{name}")))

    def deploy(
        self,
        source: str | Path,
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        tell: Callable[[str, str], None] = lambda phase, detail: None,
    ) -> EndpointView:
        """Builds a service folder or `module:Class` (or takes a built bento's tag), uploads it, and deploys it.

        Returns when one start has succeeded; a deploy that fails leaves what was there before. `tell` hears the phases.
        """
        tell("building", str(source))
        bento = build(source)
        bento_name, _, version = bento.tag.partition(":")
        path = f"{API}/bentos/{bento_name}/{version}"
        if (self._once(Ask("GET", path))).status == 404:
            tell("uploading", bento.tag)
            flow.checked(self._upload(path, bento.folder))
        body = {"name": name, "bento": bento.tag, "env": dict(env or {}), "settings": dict(settings or {})}
        with translated(self.url):  # noqa: SIM117 - the async client's second one differs
            with self._http.stream("POST", f"{API}/endpoints", **options(Ask("POST", "", json=body))) as response:
                if response.status_code >= 400:
                    response.read()
                    raise flow.error_of(answer_of(response))
                for line in response.iter_lines():
                    event = deployed(line)
                    if event["event"] == "deployed":
                        return cast(EndpointView, event["endpoint"])
                    tell(event.get("phase", event["event"]), event.get("detail", event.get("line", "")))
        raise cut_off()

    def logs(self, name: str, *, tail: int = 100, follow: bool = False) -> Iterator[str]:
        """Lines, each with its replica's id before it; with `follow` those to come too."""
        params = {"tail": str(tail), "follow": str(follow).lower()}
        path = f"{API}/endpoints/{name}/logs"
        keywords = options(Ask("GET", "", params=params))
        if follow:
            keywords["timeout"] = httpx.Timeout(None, connect=5)
        with translated(self.url), self._http.stream("GET", path, **keywords) as response:
            if response.status_code >= 400:
                response.read()
                raise flow.error_of(answer_of(response))
            yield from response.iter_lines()

    def _call(self, method: Method, ask: Ask) -> Any:
        flow_ = flow.patient(lambda left: replace(ask, within=left), self.answer_within)
        return method.value(self._drive(flow_))

    def _stream(self, ask: Ask) -> Iterator[str | bytes]:
        """Chunks as they come; text where the answer is text."""
        ask = replace(ask, within=self.answer_within)
        with translated(self.url, self.answer_within):  # noqa: SIM117 - as above
            with self._http.stream(ask.method, ask.path, **options(ask)) as response:
                if response.status_code >= 400:
                    response.read()
                    raise flow.error_of(answer_of(response))
                text = response.headers.get("content-type", "").startswith("text/")
                yield from response.iter_text() if text else response.iter_bytes()

    def _upload(self, path: str, folder: Path) -> flow.Answer:
        with translated(self.url):
            response = self._http.put(path, content=packed(folder), timeout=CONTROL_WITHIN)
        return answer_of(response)

    def _once(self, ask: Ask) -> flow.Answer:
        with translated(self.url, ask.within):
            return answer_of(self._http.request(ask.method, ask.path, **options(ask)))

    def _drive(self, steps: Flow[T]) -> T:
        try:
            wanted = next(steps)
            while True:
                if isinstance(wanted, Wait):
                    time.sleep(wanted.seconds)
                    wanted = next(steps)
                else:
                    answer = self._once(wanted)
                    wanted = steps.send(answer)
        except StopIteration as end:
            return cast(T, end.value)


class Endpoint:
    """One endpoint: `endpoint.embed(texts=[...])`. Its schema is read once, without waking it."""

    def __init__(self, client: Client, name: str, queue_within: float | None) -> None:
        self._client = client
        self._name = name
        self._queue_within = queue_within
        self._methods: dict[str, Method] | None = None

    def methods(self) -> dict[str, Method]:
        """The endpoint's methods by name."""
        if self._methods is None:
            self._methods = methods(self._name, (self._client.get(self._name))["schema"])
        return self._methods

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """A method by its name; a streaming one gives an iterator of its chunks."""
        known = self.methods()
        if method not in known:
            raise BadRequest(f"{self._name} has no method {method!r}\nit has {', '.join(sorted(known))}")
        ask = known[method].ask(args, kwargs, self._queue_within)
        if known[method].streams:
            return self._client._stream(ask)
        return self._client._call(known[method], ask)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self.call, name)
