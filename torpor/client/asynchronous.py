"""The async client: drives the flows over httpx."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast
from urllib.parse import quote

import httpx

from torpor.client import flow
from torpor.client.bento import build, packed
from torpor.client.connection import (
    CONTROL_WITHIN,
    Verify,
    address,
    answer_of,
    cut_off,
    deployed,
    later,
    request,
    session,
    translated,
)
from torpor.client.flow import Answer, Ask, Deploy, Flow, Tell, Wait
from torpor.client.payload import JSON, Method, encoded, methods
from torpor.errors import BadRequest
from torpor.wire import API, EndpointView, EventView, MadeToken, RevisionView, RuleView, SecretView, TokenView

T = TypeVar("T")

ANSWER_WITHIN = 600.0


class AsyncClient:
    """The platform at `url`: else $TORPOR_URL, else what runs on this machine. Raises classes of `torpor.errors`.

    `token`: else $TORPOR_TOKEN. `verify`: a PEM file of the authorities to trust over https, else $TORPOR_CACERT's; an
    ssl.SSLContext; False to trust whoever answers.
    `answer_within`: seconds that a call may take in all, with the wait for a start and retries of what did not run; of
    a stream, until its first chunk and from chunk to chunk.
    `transport`: httpx's, for tests a `torpor.MockTransport`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        verify: Verify = None,
        answer_within: float = ANSWER_WITHIN,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = address(url)
        self.answer_within = answer_within
        self._http = httpx.AsyncClient(**session(self.url, token, verify), transport=transport)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def endpoint(
        self, name: str, *, queue_within: float | None = None, answer_within: float | None = None
    ) -> AsyncEndpoint:
        """An endpoint's methods as methods.

        `queue_within`: seconds that a call may stay parked, then QueueTimeout. `answer_within`: else the client's.
        """
        return AsyncEndpoint(self, name, queue_within, answer_within or self.answer_within)

    async def status(self) -> dict[str, Any]:
        """The platform's own: version, pid, data folder, counts, memory in bytes."""
        return cast(dict[str, Any], await self._drive(flow.control("GET", "/status")))

    async def list(self) -> list[EndpointView]:
        """All endpoints, by name."""
        answer = await self._drive(flow.control("GET", "/endpoints"))
        return cast("list[EndpointView]", answer["endpoints"])

    async def get(self, name: str) -> EndpointView:
        """One endpoint. Raises EndpointNotFound."""
        return cast(EndpointView, await self._drive(flow.control("GET", flow.of(name))))

    async def wake(self, name: str) -> EndpointView:
        """Returns when a replica is ready. Raises StartFailed or StartTimeout."""
        return cast(EndpointView, await self._drive(flow.control("POST", flow.of(name, "/wake"))))

    async def sleep(self, name: str, *, force: bool = False) -> EndpointView:
        """Returns when no replica runs. Raises Conflict while calls run, unless forced."""
        params = {"force": str(force).lower()}
        return cast(EndpointView, await self._drive(flow.control("POST", flow.of(name, "/sleep"), params=params)))

    async def delete(self, name: str) -> EndpointView:
        """Returns when the endpoint is gone and its calls are drained: what it was."""
        return cast(EndpointView, await self._drive(flow.control("DELETE", flow.of(name))))

    async def deploy(self, source: str | Path, name: str, **options: Unpack[Deploy]) -> EndpointView:
        """Builds a service folder or `module:Class` (or takes a built bento's tag), uploads it, and deploys it.

        `options` are those of `torpor.client.flow.Deploy`. Returns when one start has succeeded; a deploy that fails
        leaves what was there before. Raises InvalidService, ModelNotFound, InvalidConfig (settings), BadRequest,
        NotFound (a secret; with `variant`, the endpoint), StartFailed, StartTimeout.
        """
        flow.deployable(name)
        tell = options.get("tell", flow.unheard)
        await self.status()  # a platform that is not there is no reason to build for seconds
        tell("building", str(source))
        bento = await asyncio.to_thread(build, source)
        path = f"{API}/bentos/{bento.tag.replace(':', '/')}"
        if (await self._once(Ask("GET", path))).status == 404:
            tell("uploading", bento.tag)
            flow.checked(await self._once(Ask("PUT", path, body=packed(bento.folder))))
        return await self._changed("/endpoints", flow.deploy_body(name, bento.tag, options), tell)

    async def history(self, name: str) -> Sequence[RevisionView]:
        """Its revisions, newest first. Raises EndpointNotFound."""
        answer = await self._drive(flow.control("GET", flow.of(name, "/revisions")))
        return cast(Sequence[RevisionView], answer["revisions"])

    async def events(self, name: str, *, limit: int = 100) -> Sequence[EventView]:
        """The last lines of its history, oldest first. Raises EndpointNotFound."""
        ask = flow.control("GET", flow.of(name, "/events"), params={"limit": str(limit)})
        return cast(Sequence[EventView], (await self._drive(ask))["events"])

    async def rollback(self, name: str, revision: int | None = None, *, tell: Tell = flow.unheard) -> EndpointView:
        """Goes back to a revision, None: to the one that was live before. Returns when it has been started and is live.

        Raises EndpointNotFound, NotFound, Conflict (it is live), StartFailed, StartTimeout: then nothing has changed.
        """
        return await self._changed(flow.of(name, "/rollback"), {"revision": revision}, tell)

    async def promote(self, name: str, variant: str = "canary", *, tell: Tell = flow.unheard) -> EndpointView:
        """Makes a variant's revision the live one; a named environment stays, a canary has ended. Raises as
        `rollback`.
        """
        return await self._changed(flow.of(name, "/promote"), {"variant": variant}, tell)

    async def start(self, name: str, *, tell: Tell = flow.unheard) -> EndpointView:
        """Puts a terminated endpoint back on the air, with the revision that was live. Raises as `rollback`."""
        return await self._changed(flow.of(name, "/start"), {}, tell)

    async def terminate(self, name: str) -> EndpointView:
        """Takes an endpoint off the air and keeps it; returns when its calls are drained. Its variants have ended."""
        return cast(EndpointView, await self._drive(flow.control("POST", flow.of(name, "/terminate"))))

    async def vary(self, name: str, variant: str, rule: RuleView | None) -> EndpointView:
        """Gives a variant another rule; None ends it, which returns when its calls are drained.

        Raises EndpointNotFound, NotFound, BadRequest.
        """
        path = flow.of(name, f"/variants/{quote(variant, safe='')}")
        ask = (
            flow.control("DELETE", path)
            if rule is None
            else flow.control("PUT", path, headers=JSON, body=encoded(rule))
        )
        return cast(EndpointView, await self._drive(ask))

    async def tokens(self) -> Sequence[TokenView]:
        """All tokens, oldest first, those that are over too; their texts are known to nobody."""
        return cast(Sequence[TokenView], (await self._drive(flow.control("GET", "/tokens")))["tokens"])

    async def create_token(self, name: str, scopes: Sequence[str], expires_in: float | None = None) -> MadeToken:
        """A new token: its text is `["token"]`, now and never again. `scopes`: call, call:<endpoint>, api, admin.

        `expires_in`: seconds, None for never. Raises BadRequest, and Conflict for a name that is taken.
        """
        body = encoded({"name": name, "scopes": [*scopes], "expires_in": expires_in})
        return cast(MadeToken, await self._drive(flow.control("POST", "/tokens", headers=JSON, body=body)))

    async def revoke_token(self, token: str) -> TokenView:
        """Ends a token, by its id or name, for every call from now on. Raises NotFound."""
        path = f"/tokens/{quote(token, safe='')}"
        return cast(TokenView, await self._drive(flow.control("DELETE", path)))

    async def secrets(self) -> Sequence[SecretView]:
        """All secrets, by name, without their values."""
        return cast(Sequence[SecretView], (await self._drive(flow.control("GET", "/secrets")))["secrets"])

    async def set_secret(self, name: str, env: Mapping[str, str | None], description: str = "") -> SecretView:
        """Makes a secret of variables, or replaces all that one holds: where the value is None, it keeps its own.

        Replicas that start from now on have it. Raises BadRequest.
        """
        body = encoded({"env": dict(env), "description": description})
        ask = flow.control("PUT", f"/secrets/{quote(name, safe='')}", headers=JSON, body=body)
        return cast(SecretView, await self._drive(ask))

    async def remove_secret(self, name: str) -> SecretView:
        """Raises NotFound, and Conflict while a live revision has it."""
        return cast(SecretView, await self._drive(flow.control("DELETE", f"/secrets/{quote(name, safe='')}")))

    async def gc(self, *, dry_run: bool = True, only: Sequence[str] | None = None) -> dict[str, Any]:
        """What no revision uses any more: `items` of kind, name, title and size in bytes. Freed without `dry_run`.

        `only`: the titles of those to free, as an earlier answer told them; None for all.
        """
        body = encoded({"dry_run": dry_run, **({} if only is None else {"only": [*only]})})
        return cast(dict[str, Any], await self._drive(flow.control("POST", "/gc", headers=JSON, body=body)))

    async def logs(self, name: str, *, tail: int = 100, follow: bool = False) -> AsyncGenerator[str, None]:
        """Lines, each with its replica's id before it; with `follow` those to come too. Asked for with the first."""
        params = {"tail": str(tail), "follow": str(follow).lower()}
        ask = Ask("GET", API + flow.of(name, "/logs"), params=params, within=float("inf") if follow else None)
        async with self._opened(ask) as response:
            async for line in response.aiter_lines():
                yield line

    async def _changed(self, path: str, body: Any, tell: Tell) -> EndpointView:
        """What a change of an endpoint has made of it, its events told as they come."""
        async with self._opened(Ask("POST", API + path, headers=JSON, body=encoded(body))) as response:
            async for line in response.aiter_lines():
                event = deployed(line)
                if event["event"] == "deployed":
                    return cast(EndpointView, event["endpoint"])
                tell(event.get("phase", event["event"]), event.get("detail", event.get("line", "")))
        raise cut_off()

    async def _call(self, method: Method, ask: Ask, within: float, own_patience: bool) -> Any:
        return method.value(await self._drive(flow.patient(ask, within, own_patience), within))

    async def _stream(
        self, method: Method, ask: Ask, within: float, own_patience: bool
    ) -> AsyncGenerator[str | bytes, None]:
        """Chunks as they come; text where the answer is text. The call is made when the first is asked for."""
        steps = flow.patient(ask, within, own_patience)
        wanted = next(steps)
        while True:
            if isinstance(wanted, Wait):
                await asyncio.sleep(wanted.seconds)
                wanted = next(steps)
                continue
            with translated(self.url, within), request(wanted, later) as keywords:
                async with self._http.stream(**keywords) as response:
                    if response.status_code < 400:
                        text = response.headers.get("content-type", "").startswith("text/") and not method.binary
                        async for chunk in response.aiter_text() if text else response.aiter_bytes():
                            yield chunk
                        return
                    answer = await self._whole(response, within)
            wanted = steps.send(answer)

    @asynccontextmanager
    async def _opened(self, ask: Ask) -> AsyncIterator[httpx.Response]:
        """An answer of the control plane that is read as it comes. Raises the error that it is."""
        with translated(self.url), request(ask, later) as keywords:
            async with self._http.stream(**keywords) as response:
                if response.status_code >= 400:
                    flow.checked(await self._whole(response, CONTROL_WITHIN))
                yield response

    async def _once(self, ask: Ask, within: float | None = None) -> Answer:
        with translated(self.url, within), request(ask, later) as keywords:
            async with self._http.stream(**keywords) as response:
                return await self._whole(response, ask.within or CONTROL_WITHIN)

    async def _whole(self, response: httpx.Response, within: float) -> Answer:
        """httpx bounds the wait for each piece; this bounds all of them."""
        deadline = time.monotonic() + within
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if time.monotonic() > deadline:
                raise flow.late(within)
        return answer_of(response, bytes(body))

    async def _drive(self, steps: Flow[T], within: float | None = None) -> T:
        try:
            wanted = next(steps)
            while True:
                if isinstance(wanted, Wait):
                    await asyncio.sleep(wanted.seconds)
                    wanted = next(steps)
                else:
                    answer = await self._once(wanted, within)
                    wanted = steps.send(answer)
        except StopIteration as end:
            return cast(T, end.value)


class AsyncEndpoint:
    """One endpoint: `endpoint.embed(texts=[...])`. Its schema is read without waking it."""

    def __init__(self, client: AsyncClient, name: str, queue_within: float | None, answer_within: float) -> None:
        self._client = client
        self._name = name
        self._queue_within = queue_within
        self._answer_within = answer_within
        self._methods: dict[str, Method] = {}

    async def methods(self) -> dict[str, Method]:
        """The endpoint's methods by name, as they are now."""
        self._methods = methods(self._name, await self._client._drive(flow.described(self._name)))
        return self._methods

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """A method by its name; a streaming one gives an async iterator of its chunks."""
        known = self._methods.get(method) or (await self.methods()).get(method)
        if known is None:
            raise BadRequest(f"{self._name} has no method {method!r}\nit has {', '.join(sorted(self._methods))}")
        ask = known.ask(args, kwargs, self._queue_within)
        own_patience = self._queue_within is not None
        if known.streams:
            return self._client._stream(known, ask, self._answer_within, own_patience)
        return await self._client._call(known, ask, self._answer_within, own_patience)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self.call, name)
