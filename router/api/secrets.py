"""The control plane's own routes about secrets. Answers have keys, and never a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.read import read_object
from router.api.session import Sessions
from router.core.secrets import SIZE_MAX, Item, Key, Secret, Wanted
from router.shell.secrets import Secrets
from torpor.errors import BadRequest
from torpor.wire import API, SecretView

BODY_MAX = 8 * SIZE_MAX  # bytes of a request: JSON may take six for one


@dataclass(frozen=True, slots=True)
class SecretRoutes:
    secrets: Secrets
    sessions: Sessions

    def routes(self) -> Sequence[BaseRoute]:
        each = f"{API}/secrets/{{name}}"
        return [
            Route(f"{API}/secrets", self.list, methods=["GET"]),
            Route(each, self.put, methods=["PUT"]),
            Route(each, self.delete, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        return JSONResponse({"secrets": [self._view(secret) for secret in self.secrets.all()]})

    async def put(self, request: Request) -> Response:
        """Variables, all that the secret will hold; one that is null keeps its value."""
        body = await read_object(request, BODY_MAX)
        unknown = sorted(set(body) - {"env", "description"})
        env, description = body.get("env"), body.get("description", "")
        if unknown:
            raise BadRequest(f"unknown keys: {', '.join(unknown)}\na secret takes env and description")
        if not isinstance(description, str):
            raise BadRequest("`description` has to be a string\nsend one, or leave it out")
        if not isinstance(env, dict) or not all(isinstance(value, str | None) for value in env.values()):
            raise BadRequest("`env` has to be an object of strings\nwrite numbers as strings")
        items = tuple(Item(Key(key), value) for key, value in env.items())
        wanted, name = Wanted(items, description=description), request.path_params["name"]
        return JSONResponse(self._view(await self.secrets.put(name, wanted, self.sessions.name(request))))

    async def delete(self, request: Request) -> Response:
        return JSONResponse(self._view(await self.secrets.delete(request.path_params["name"])))

    def _view(self, secret: Secret) -> SecretView:
        return SecretView(
            name=secret.name,
            type=secret.type,
            stage=secret.stage,
            path=secret.path,
            keys=[key.name for key in secret.keys],
            description=secret.description,
            creator=secret.creator,
            created_at=secret.created_at,
            updated_at=secret.updated_at,
            users=self.secrets.users(secret.name),
        )
