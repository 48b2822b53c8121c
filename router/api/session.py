"""A browser's session with the control plane: bound to a token, and told apart from it.

The cookie is a random text that is kept nowhere but in memory, as its digest; the router's proxy takes it out of what
goes to endpoints, and tells the control plane the digest in a header that callers cannot send.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.guard import split
from router.api.pages import page
from router.core.tokens import Token
from router.shell.door import Door
from torpor.errors import BadRequest, BodyTooLarge, Forbidden, Unauthorized
from torpor.wire import HOLDER, SESSION, SESSION_COOKIE

LASTS = 12 * 3600.0  # seconds
SESSIONS_MAX = 1000  # above it the oldest one ends
FORM_MAX = 16 << 10  # bytes


@dataclass(slots=True)
class Sessions:
    """Who asks the control plane. `clock`: seconds since the epoch."""

    door: Door
    clock: Callable[[], float]
    _begun: dict[str, tuple[str, float]] = field(
        default_factory=dict
    )  # digest -> the token's id, and when; oldest first

    def holder(self, request: HTTPConnection) -> Token | None:
        """The token with which a request came, or to which its session is bound, while it is usable.

        None: nobody's, as on the router's own socket and where no token is asked for.
        """
        if (digest := request.headers.get(HOLDER)) is not None:
            return self.door.tokens.known(bytes.fromhex(digest))
        found = self._begun.get(request.headers.get(SESSION, ""))
        if found is None or self.clock() - found[1] > LASTS:
            return None
        return self.door.tokens.usable_one(found[0])

    def asker(self, request: HTTPConnection) -> Token | None:
        """As `holder`. Raises Unauthorized for a token that is none of this platform's.

        The door has looked at it where tokens are asked for. Where they are not, whoever shows one means it.
        """
        holder = self.holder(request)
        if holder is None and HOLDER in request.headers:
            raise Unauthorized("the token is unknown, revoked or over\nget another: `torpor tokens create`")
        return holder

    def name(self, request: HTTPConnection) -> str:
        """Who asks, by the name of the token; "" for nobody's."""
        holder = self.holder(request)
        return holder.name if holder is not None else ""

    def allows(self, request: HTTPConnection, scope: str) -> bool:
        """Whether a page that the door lets everybody reach may be shown to who asks for it, or may act for them."""
        holder = self.holder(request)
        return holder.allows(scope) if holder is not None else not self.door.asks

    def begin(self, token: Token) -> str:
        """The text of a new session's cookie."""
        text = secrets.token_urlsafe(32)
        while len(self._begun) >= SESSIONS_MAX:
            del self._begun[next(iter(self._begun))]
        self._begun[hashlib.sha256(text.encode()).hexdigest()] = (token.id, self.clock())
        return text

    def end(self, request: HTTPConnection) -> None:
        self._begun.pop(request.headers.get(SESSION, ""), None)


@dataclass(frozen=True, slots=True)
class LoginRoutes:
    """`/login` and `/logout`."""

    sessions: Sessions

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/login", self.show, methods=["GET"]),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        return page("login.html", next=onward(request.query_params.get("next", "")))

    async def login(self, request: Request) -> Response:
        """A token for a cookie; then on to where the browser wanted to go."""
        form = await read_form(request)
        next = onward(form.get("next", ""))
        token = self.sessions.door.tokens.known(hashlib.sha256(form.get("token", "").strip().encode()).digest())
        if token is None:
            return page("login.html", 401, next=next, fault="The token is unknown, revoked or over.")
        answer = RedirectResponse(next, 303, {"Cache-Control": "no-store"})
        secure = request.headers.get("x-forwarded-proto") == "https"
        text = self.sessions.begin(token)
        answer.set_cookie(
            SESSION_COOKIE, text, max_age=int(LASTS), httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    async def logout(self, request: Request) -> Response:
        await read_form(request)
        self.sessions.end(request)
        answer = RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
        answer.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
        return answer


def login_first(request: Request) -> Response:
    """The answer to whom a page is not for yet: they log in, and come back."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(
        f"/login?{urlencode({'next': request.url.path + query})}", 303, {"Cache-Control": "no-store"}
    )


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that one of our own pages has sent. Raises Forbidden for another's, and BadRequest.

    A cookie that is strict about sites is sent from the same host's other ports all the same, and an endpoint may show
    pages there: so the page's origin is looked at too.
    """
    origin = request.headers.get("origin")
    if origin is None or split(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Forbidden("a page of another origin sent this form\nuse the page of this platform itself")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX:
            raise BodyTooLarge(f"the form is longer than {FORM_MAX} bytes\nsend less")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20)
    except ValueError:
        raise BadRequest("the body is no form\nuse the page of this platform itself") from None
    return {name: values[0] for name, values in fields.items()}


def onward(path: str) -> str:
    """Where a login may lead: to a page of this platform, never to another host."""
    local = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if local else "/deployments"
