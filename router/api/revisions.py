"""The control plane's routes about revisions: deploys, going back, promoting, variants, taking off the air; history.

Each change, and each that failed, is a line of its endpoint's history.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.api.events import Events
from router.api.read import read_deploy, read_limit, read_number, read_object, read_rule, read_variant
from router.api.views import Views, revision_view
from router.core.catalog import Catalog, Revision
from router.core.settings import Settings
from router.core.split import Rule
from router.shell.deploys import Deploys
from router.shell.request import Request, Tell
from torpor.errors import TorporError
from torpor.wire import API, EventView


class Archive(Protocol):
    """What was: revisions and events."""

    def revisions(self, name: str) -> list[Revision]:
        """Newest first. Blocks."""
        ...

    async def events(self, endpoint: str, limit: int) -> list[tuple[float, str, str]]:
        """(instant, kind, text) of the last ones, oldest first."""
        ...

    def note(self, endpoint: str, kind: str, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RevisionRoutes:
    """`creator_of`: the name of the token that asks; `refused`: an error as an answer."""

    deploys: Deploys
    catalog: Catalog
    archive: Archive
    views: Views
    defaults: Settings
    opens: bool  # `access: false` opens an endpoint to everybody
    creator_of: Callable[[HTTPRequest], str]
    refused: Callable[[TorporError], Response]

    def routes(self) -> list[Route]:
        """All but the deploy's: its path has another method too."""
        one = f"{API}/endpoints/{{name}}"
        return [
            Route(f"{one}/revisions", self.revisions, methods=["GET"]),
            Route(f"{one}/events", self.events, methods=["GET"]),
            Route(f"{one}/rollback", self.rollback, methods=["POST"]),
            Route(f"{one}/promote", self.promote, methods=["POST"]),
            Route(f"{one}/variants/{{variant}}", self.vary, methods=["PUT", "DELETE"]),
            Route(f"{one}/terminate", self.terminate, methods=["POST"]),
            Route(f"{one}/start", self.start, methods=["POST"]),
        ]

    async def revisions(self, request: HTTPRequest) -> Response:
        name = request.path_params["name"]
        live = self.catalog.known(name)
        state: dict[int, list[str]] = {live.revision: ["terminated" if live.terminated else "live"]}
        for variant in self.catalog.variants.get(name, ()):
            state.setdefault(variant.revision, []).append(variant.name)
        found = await asyncio.to_thread(self.archive.revisions, name)
        usual = dataclasses.asdict(self.defaults)
        views = [revision_view(each, state.get(each.number, []), usual) for each in found]
        return JSONResponse({"revisions": views})

    async def events(self, request: HTTPRequest) -> Response:
        name, limit = request.path_params["name"], read_limit(request)
        self.catalog.known(name)
        found = await self.archive.events(name, limit)
        return JSONResponse({"events": [EventView(at=at, kind=kind, text=text) for at, kind, text in found]})

    async def deploy(self, request: HTTPRequest) -> Response:
        by = self.creator_of(request)
        wanted = read_deploy(await read_object(request), self.defaults, by, self.opens)

        async def work(tell: Tell) -> None:
            await self.deploys.deploy(wanted, tell)
            for note in wanted.notes:  # a first deploy has no history before
                self.archive.note(wanted.name, "note", note)

        return self._stream(wanted.name, "deploy", work, lambda: ("deployed", self._deployed(wanted)), by)

    async def rollback(self, request: HTTPRequest) -> Response:
        name, by = request.path_params["name"], self.creator_of(request)
        number = read_number(await read_object(request))
        before = self.catalog.known(name).revision

        async def work(tell: Tell) -> None:
            await self.deploys.rollback(name, number, tell)

        def done() -> tuple[str, str]:
            return "rolled_back", f"revision {self.catalog.known(name).revision} is live in the place of {before}"

        return self._stream(name, "rollback", work, done, by)

    async def promote(self, request: HTTPRequest) -> Response:
        name, by = request.path_params["name"], self.creator_of(request)
        variant = read_variant(await read_object(request))

        async def work(tell: Tell) -> None:
            await self.deploys.promote(name, variant, tell)

        def done() -> tuple[str, str]:
            return "promoted", f"revision {self.catalog.known(name).revision} of {variant} is live"

        return self._stream(name, "promotion", work, done, by)

    async def start(self, request: HTTPRequest) -> Response:
        name, by = request.path_params["name"], self.creator_of(request)
        was = self.catalog.known(name).terminated

        async def work(tell: Tell) -> None:
            await self.deploys.start(name, tell)

        def done() -> tuple[str, str]:
            return ("started", f"revision {self.catalog.known(name).revision} is on the air again") if was else ("", "")

        return self._stream(name, "restart", work, done, by)

    async def terminate(self, request: HTTPRequest) -> Response:
        name, by = request.path_params["name"], self.creator_of(request)
        was = self.catalog.known(name).terminated
        await self.deploys.terminate(name)
        if not was:
            self._note(name, "terminated", "it is off the air, and kept", by)
        return JSONResponse(self.views.endpoint(name))

    async def vary(self, request: HTTPRequest) -> Response:
        name, variant, by = request.path_params["name"], request.path_params["variant"], self.creator_of(request)
        rule = None if request.method == "DELETE" else read_rule(await read_object(request))
        number = self.deploys.variant(name, variant).revision
        await self.deploys.vary(name, variant, rule)
        if rule is None:
            self._note(name, "ended", f"{variant} has ended: revision {number} is beside the live one no more", by)
        else:
            self._note(name, "varied", f"{variant}, revision {number}, gets {share(rule)}", by)
        return JSONResponse(self.views.endpoint(name))

    def _stream(
        self,
        name: str,
        what: str,
        work: Callable[[Tell], Awaitable[None]],
        done: Callable[[], tuple[str, str]],
        by: str,
    ) -> Response:
        """The events of a change, and its line in the endpoint's history. `done`: kind and text of it, "" for none."""

        async def seen(tell: Tell) -> dict[str, Any]:
            with self._noted(name, what, by):
                await work(tell)
            kind, text = done()
            if kind:
                self._note(name, kind, text, by)
            return {"event": "deployed", "endpoint": self.views.endpoint(name)}

        return Events(seen, self.refused)

    @contextmanager
    def _noted(self, name: str, what: str, by: str) -> Iterator[None]:
        try:
            yield
        except TorporError as error:
            entry = self.catalog.endpoints.get(name)
            goes_on = f"\nrevision {entry.revision} goes on serving" if entry is not None else ""
            self._note(name, f"{what}_failed", error.message + goes_on, by)
            raise

    def _deployed(self, request: Request) -> str:
        if not request.variant:
            return f"revision {self.catalog.known(request.name).revision} is live"
        number = self.deploys.variant(request.name, request.variant).revision
        return f"revision {number} is beside the live one: {request.variant}, {share(request.rule or Rule('address'))}"

    def _note(self, name: str, kind: str, text: str, by: str) -> None:
        first, newline, rest = text.partition("\n")
        self.archive.note(name, kind, f"{first}{f', by {by}' if by else ''}{newline}{rest}")


def share(rule: Rule) -> str:
    """What a variant gets, in words."""
    match rule.kind:
        case "address":
            return "calls to its own address"
        case "shadow":
            return f"copies of {rule.weight} percent of the calls"
        case "random":
            return f"{rule.weight} percent of the calls"
    return f"{rule.weight} percent of the calls by {rule.kind} {rule.by}"
