"""Secrets in BentoCloud's API: `/api/v1/org_secrets`. Answers have keys, and never a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.cloud.shapes import cluster, listing, resource, user
from router.api.cloud.who import OWNER, check_cluster
from router.api.read import read_object
from router.api.session import Sessions
from router.core.secrets import ENV, RUNTIME, SIZE_MAX, Item, Key, Secret, Wanted
from router.shell.secrets import Secrets
from torpor.errors import BadRequest

ROOT = "/api/v1/org_secrets"
BODY_MAX = 8 * SIZE_MAX  # bytes of a request: JSON may take six for one


@dataclass(frozen=True, slots=True)
class CloudSecretRoutes:
    secrets: Secrets
    sessions: Sessions

    def routes(self) -> list[BaseRoute]:
        return [
            Route(ROOT, self.list, methods=["GET"]),
            Route(ROOT, self.create, methods=["POST"]),
            Route(ROOT + "/{name}", self.get, methods=["GET"]),
            Route(ROOT + "/{name}", self.update, methods=["PATCH"]),
            Route(ROOT + "/{name}", self.delete, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        words = request.query_params.get("search", "") or request.query_params.get("q", "")
        found = [secret for secret in self.secrets.all() if words in secret.name]
        if request.query_params.get("all") == "true":  # the command line asks so, and names 10 all the same
            items = [shown(secret) for secret in found]
            return JSONResponse({"start": 0, "count": len(items), "total": len(items), "items": items})
        return listing(request, found, shown)

    async def create(self, request: Request) -> Response:
        check_cluster(request.query_params.get("cluster", ""))
        body = await read_object(request, BODY_MAX)
        name = body.get("name")
        if not isinstance(name, str):
            raise BadRequest("`name` has to be a string\nname the secret")
        return JSONResponse(shown(await self.secrets.create(name, read_wanted(body), self.sessions.name(request))))

    async def get(self, request: Request) -> Response:
        return JSONResponse(shown(self.secrets.get(request.path_params["name"])))

    async def update(self, request: Request) -> Response:
        name = request.path_params["name"]
        before = self.secrets.get(name)
        wanted = read_wanted(await read_object(request, BODY_MAX), before.description)
        return JSONResponse(shown(await self.secrets.update(name, wanted)))

    async def delete(self, request: Request) -> Response:
        return JSONResponse(shown(await self.secrets.delete(request.path_params["name"])))


def read_wanted(body: dict[str, Any], description: str = "") -> Wanted:
    """The secret of a body `{description, content: {type, path, stage, items: [{key, sub_path, value}]}}`.

    `description`: where the body says none. Raises BadRequest, which tells no value.
    """
    content = body.get("content")
    items = content.get("items") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(items, list):
        raise BadRequest("`content` has to have a list of `items`\nsend {type, items: [{key, value}]}")
    texts = {"description": body.get("description", description), **{key: content.get(key) for key in PARTS}}
    wrong = [key for key, text in texts.items() if not isinstance(text, str | None)]
    if wrong:
        raise BadRequest(f"`{wrong[0]}` has to be a string\nsend one, or leave it out")
    return Wanted(
        items=tuple(read_item(item) for item in items),
        type=texts["type"] or ENV,
        path=texts["path"] or "",
        stage=texts["stage"] or RUNTIME,
        description=texts["description"] or "",
    )


PARTS = ("type", "path", "stage")


def read_item(item: Any) -> Item:
    parts = item if isinstance(item, dict) else {}
    key, sub_path, value = parts.get("key"), parts.get("sub_path"), parts.get("value")
    if not isinstance(key, str) or not key or not isinstance(sub_path, str | None) or not isinstance(value, str | None):
        raise BadRequest("an item of a secret is no {key, sub_path, value} of strings\nmend it")
    return Item(Key(key, sub_path or None), value)


def shown(secret: Secret) -> dict[str, Any]:
    return {
        **resource("secret", secret.name, secret.uid, secret.created_at, secret.updated_at),
        "description": secret.description,
        "creator": user(secret.creator or OWNER),
        "cluster": cluster(),
        "content": {
            "type": secret.type,
            "path": secret.path or None,
            "stage": secret.stage,
            "items": [{"key": key.name, "sub_path": key.sub_path, "value": None} for key in secret.keys],
        },
    }
