"""The login of a command line through a browser: it shows a code, a person consents on a page, it gets a token."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.pages import page
from router.api.session import Sessions, login_first, read_form
from router.core.tokens import CLOUD
from torpor.errors import NotFound, Overloaded

LASTS = 300.0  # seconds from the making of a code until its token is fetched
PENDING_MAX = 100  # codes at once
SHOWN = 8  # characters of a code by which its token is named
NO_STORE = {"Cache-Control": "no-store"}


@dataclass(slots=True)
class Pending:
    """One code. `origin`: the address that asked for it; `token`: the text, from the consent until it is fetched."""

    began_at: float
    origin: str
    token: str | None = None


@dataclass(slots=True)
class BrowserLogin:
    """Codes are kept in memory, and each is good for one token. `clock`: seconds since the epoch."""

    sessions: Sessions
    clock: Callable[[], float]
    _pending: dict[str, Pending] = field(default_factory=dict)  # oldest first

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/v1/auth/code", self.code, methods=["GET"]),
            Route("/api/v1/auth/token", self.token, methods=["GET"]),
            Route("/api_tokens", self.ask, methods=["GET"]),
            Route("/api_tokens", self.consent, methods=["POST"]),
        ]

    async def code(self, request: Request) -> Response:
        self._forget_old()
        if len(self._pending) >= PENDING_MAX:
            raise Overloaded(f"{PENDING_MAX} logins wait for a consent already\ntry again in a few minutes")
        code = secrets.token_urlsafe(24)
        self._pending[code] = Pending(self.clock(), request.headers.get("x-forwarded-for", "this machine"))
        return JSONResponse({"code": code}, headers=NO_STORE)

    async def token(self, request: Request) -> Response:
        """Once: the command line asks every second, and takes anything but a token as a no for now."""
        code = request.query_params.get("code", "")
        self._forget_old()
        pending = self._pending.get(code)
        if pending is None or pending.token is None:
            raise NotFound("nobody has consented to this login yet, or its time is over\nopen its page in a browser")
        del self._pending[code]
        return JSONResponse({"token": pending.token}, headers=NO_STORE)

    async def ask(self, request: Request) -> Response:
        """The page that asks for the consent, of whoever may make such a token."""
        if not self.sessions.allows(request, CLOUD):
            return login_first(request)
        return self._shown(request.query_params.get("code", ""))

    async def consent(self, request: Request) -> Response:
        form = await read_form(request)
        if not self.sessions.allows(request, CLOUD):
            return login_first(request)
        code = form.get("code", "")
        pending = self._open(code)
        if pending is None:
            return self._shown(code)
        tokens, name = self.sessions.door.tokens, named(code)
        if self.sessions.door.asks:  # once more: a page of an endpoint, at the same address, could send this form too
            holder = tokens.known(hashlib.sha256(form.get("token", "").strip().encode()).digest())
            if holder is None or not holder.allows(CLOUD):
                return self._shown(code, "That token is unknown, over, or may not do this.")
        pending.token = ""  # a second consent meanwhile makes no second token
        try:
            _, pending.token = await tokens.create(name, [CLOUD], None, "made in a browser for `bentoml cloud login`")
        except BaseException:
            pending.token = None
            raise
        self.sessions.door.look()
        return page("consented.html", name=name)

    def _shown(self, code: str, fault: str = "") -> Response:
        pending = self._open(code)
        if pending is None:
            return page("no_code.html", 404)
        first = not self.sessions.door.asks
        shown = {"code": code, "name": named(code), "origin": pending.origin, "first": first, "fault": fault}
        return page("consent.html", 401 if fault else 200, **shown)

    def _open(self, code: str) -> Pending | None:
        """One that waits for a consent."""
        self._forget_old()
        pending = self._pending.get(code)
        return pending if pending is not None and pending.token is None else None

    def _forget_old(self) -> None:
        now = self.clock()
        self._pending = {code: each for code, each in self._pending.items() if now - each.began_at < LASTS}


def named(code: str) -> str:
    return f"browser-{code[:SHOWN]}"
