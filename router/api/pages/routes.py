"""`/deployments` and `/deployments/<name>`: the pages that the bentoml command line's links open. They only read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

import torpor
from router.api.cloud.shapes import whole
from router.api.pages import page
from router.api.pages.deployed import LISTED, Gathering
from router.api.session import Sessions, login_first
from router.core.tokens import READ_CLUSTER
from router.shell.door import Door
from torpor.errors import NotFound, TorporError, Unauthorized
from torpor.wire import API, HOLDER

PAGES = "/deployments"


@dataclass(frozen=True, slots=True)
class DeploymentPages:
    """Asked for by whoever may read the cluster: with a session, or where no token is asked for at all."""

    gathering: Gathering
    sessions: Sessions

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.front, methods=["GET"]),
            Route(PAGES, self.list, methods=["GET"]),
            Route(f"{PAGES}/", self.list, methods=["GET"]),
            Route(f"{PAGES}/{{name:path}}", self.one, methods=["GET"]),
        ]

    async def front(self, request: Request) -> Response:
        """A browser is led to the list; a program is told what there is. The door lets in who has no token."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(PAGES, 303, {"Vary": "Accept", "Cache-Control": "no-store"})
        if nobody(request, self.sessions.door):
            raise Unauthorized("this platform asks for a token, and the request has none\nsend `Authorization: Bearer`")
        names = sorted(self.gathering.engine.catalog.endpoints)
        return JSONResponse({"torpor": torpor.__version__, "endpoints": names, "api": API}, headers={"Vary": "Accept"})

    async def list(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            start = whole(request, "start", 0)
        except TorporError as error:
            return page("missing.html", error.status, who=self.sessions.name(request), sentence=error.message)
        rows, total = self.gathering.rows(start)
        under_way = any(row.condition.tone == "busy" for row in rows)
        return page(
            "deployments.html",
            who=self.sessions.name(request),
            rows=rows,
            total=total,
            start=start,
            listed=LISTED,
            under_way=under_way,
        )

    async def one(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        name, who, gathering = request.path_params["name"], self.sessions.name(request), self.gathering
        try:
            now = gathering.now(name, self.sessions.door.asks_of)
        except NotFound:
            return page("missing.html", 404, who=who, sentence=f"No deployment is called {name}.")
        live, variants = gathering.deployments.entry(name), gathering.engine.catalog.variants.get(name, ())
        past = await asyncio.to_thread(gathering.past, name, live, variants)
        return page("deployment.html", who=who, now=now, past=past, under_way=now.under_way)

    def _refusal(self, request: Request) -> Response | None:
        """A login, for whom the pages are not."""
        if self.sessions.allows(request, READ_CLUSTER):
            return None
        holder = self.sessions.holder(request)
        if holder is None:
            return login_first(request)
        scopes = ", ".join(holder.scopes)
        fault = f"The token {holder.name} has the scope {scopes}; this page needs {READ_CLUSTER}, api or admin."
        return page("login.html", 403, next=request.url.path, fault=fault)


def nobody(request: Request, door: Door) -> bool:
    """Whether a request came over the network without a token where one is asked for."""
    return door.asks and HOLDER not in request.headers and "x-forwarded-for" in request.headers
