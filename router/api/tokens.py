"""The control plane's routes about tokens. The text of one is in the answer to its making, and nowhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.api.read import read_object
from router.core.tokens import SCOPES, Token
from router.shell.door import Door
from router.shell.tokens import expiry
from torpor.errors import BadRequest
from torpor.wire import TokenView


@dataclass(frozen=True, slots=True)
class TokenRoutes:
    """Reading and changing what the door knows."""

    door: Door

    async def list(self, request: Request) -> Response:
        return JSONResponse({"tokens": [view(token) for token in self.door.tokens.all()]})

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        unknown = sorted(set(body) - {"name", "scopes", "expires_in"})
        if unknown:
            raise BadRequest(f"unknown keys: {', '.join(unknown)}\na token takes name, scopes and expires_in")
        name, scopes = body.get("name"), body.get("scopes")
        if not isinstance(name, str):
            raise BadRequest("`name` has to be a string\nname the token after who will hold it")
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise BadRequest(f"`scopes` has to be a list of strings\nuse {SCOPES}")
        token, text = await self.door.tokens.create(name, scopes, expiry(body.get("expires_in")))
        self.door.look()
        return JSONResponse({**view(token), "token": text}, headers={"Cache-Control": "no-store"})

    async def revoke(self, request: Request) -> Response:
        return JSONResponse(view(await self.door.tokens.revoke(request.path_params["token"])))


def view(token: Token) -> TokenView:
    now = time.time()
    return TokenView(
        id=token.id,
        name=token.name,
        scopes=list(token.scopes),
        state="revoked" if token.revoked else "valid" if token.usable(now) else "expired",
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )
