"""The platform's tokens in BentoCloud's API: `/api/v1/api_tokens`. A text is in the answer to its making only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.cloud.shapes import instant, listing, organisation, resource, user
from router.api.read import read_object
from router.api.session import Sessions
from router.core.tokens import CALL_ONE, CLOUD, SCOPES, Token
from torpor.errors import BadRequest, Forbidden, NotFound

ROOT = "/api/v1/api_tokens"
COUNT = 100  # of a list, where the query does not say
DESCRIPTION_MAX = 1000  # characters


@dataclass(frozen=True, slots=True)
class CloudTokenRoutes:
    """Nobody makes or ends by this what may do more than they themselves may."""

    sessions: Sessions

    def routes(self) -> list[BaseRoute]:
        return [
            Route(ROOT, self.list, methods=["GET"]),
            Route(ROOT, self.create, methods=["POST"]),
            Route(ROOT + "/{uid}", self.get, methods=["GET"]),
            Route(ROOT + "/{uid}", self.delete, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        words = request.query_params.get("search", "") or request.query_params.get("q", "")
        found = [token for token in self.sessions.door.tokens.all() if not token.revoked and words in token.name]
        return listing(request, found[::-1], shown, COUNT)

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        name, description = body.get("name"), body.get("description") or ""
        if not isinstance(name, str):
            raise BadRequest("`name` has to be a string\nname the token after who will hold it")
        if not isinstance(description, str) or len(description) > DESCRIPTION_MAX:
            raise BadRequest(f"`description` has to be a string\nsay at most {DESCRIPTION_MAX} characters")
        scopes = self._granted(request, body.get("scopes"))
        expires_in = read_expiry(body.get("expired_at"), time.time())
        token, text = await self.sessions.door.tokens.create(name, [*scopes], expires_in, description)
        self.sessions.door.look()
        return JSONResponse({**shown(token), "token": text}, headers={"Cache-Control": "no-store"})

    async def get(self, request: Request) -> Response:
        return JSONResponse(shown(self._found(request)))

    async def delete(self, request: Request) -> Response:
        token, asker = self._found(request), self.sessions.holder(request)
        if asker is not None and (more := beyond(asker, token.scopes)):
            wider = f"the token {token.name!r} may do more than yours: {', '.join(more)}"
            raise Forbidden(f"{wider}\nuse one with that scope")
        return JSONResponse(shown(await self.sessions.door.tokens.revoke(token.id)))

    def _found(self, request: Request) -> Token:
        uid = request.path_params["uid"]
        for token in self.sessions.door.tokens.all():
            if token.id == uid and not token.revoked:
                return token
        raise NotFound(f"no token has the uid {uid!r}\nsee `bentoml api-token list`")

    def _granted(self, request: Request, scopes: Any) -> Sequence[str]:
        """The scopes of a new token; unsaid, those of who asks, as far as they are of this API."""
        asker = self.sessions.holder(request)
        if not scopes:
            return (CLOUD,) if asker is None or asker.allows(CLOUD) else asker.scopes
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise BadRequest(f"`scopes` has to be a list of strings\nuse {SCOPES}")
        if asker is not None and (more := beyond(asker, scopes)):
            raise Forbidden(f"your token may not give what it has not: {', '.join(more)}\nuse one with that scope")
        return scopes


def beyond(asker: Token, scopes: Any) -> list[str]:
    """What a token with these scopes may do, and the asker's may not."""
    return [scope for scope in scopes if not asker.allows(scope)]


def shown(token: Token) -> dict[str, Any]:
    now = time.time()
    return {
        **resource("api_token", token.name, token.id, token.created_at),
        "description": token.description,
        "scopes": list(token.scopes),
        "user": user(token.name),
        "organization": organisation(),
        "expired_at": None if token.expires_at is None else instant(token.expires_at),
        "last_used_at": None if token.last_used_at is None else instant(token.last_used_at),
        "is_expired": not token.usable(now),
        "is_api_token": True,
        "is_organization_token": False,
        "is_global_access": not any(scope.startswith(CALL_ONE) for scope in token.scopes),
    }


def read_expiry(value: Any, now: float) -> float | None:
    """Seconds from now until an instant in ISO 8601. The command line sends one without a zone, which is UTC.

    Raises BadRequest.
    """
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        at = at and (at if at.tzinfo is not None else at.replace(tzinfo=UTC))
        seconds = at.timestamp() - now if at is not None else None
    except (ValueError, OverflowError):
        seconds = None
    if seconds is None:
        raise BadRequest(f"`expired_at` = {value!r} is no instant\nwrite 2027-01-31T12:00:00, in UTC, or leave it out")
    if seconds <= 0:
        raise BadRequest(f"`expired_at` = {value!r} is over already\nname an instant to come; without a zone it is UTC")
    return seconds
