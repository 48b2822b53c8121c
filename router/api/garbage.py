"""The control plane's route about what nothing uses any more: what would be freed, and its freeing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.api.read import read_object
from router.garbage import Garbage, Unused
from router.shell.repositories import Repositories
from torpor.errors import BadRequest


@dataclass(frozen=True, slots=True)
class GarbageRoutes:
    """What revisions run on, live ones and those that are kept, stays."""

    garbage: Garbage
    repositories: Repositories

    async def gc(self, request: Request) -> Response:
        """`dry_run`: only tell. `only`: the titles of those to free, as an earlier answer told them; unset: all."""
        body = await read_object(request)
        unknown = sorted(set(body) - {"dry_run", "only"})
        if unknown:
            raise BadRequest(f"unknown keys: {', '.join(unknown)}\ngc takes dry_run and only")
        dry_run, only = body.get("dry_run", True), body.get("only")
        if not isinstance(dry_run, bool):
            raise BadRequest("`dry_run` has to be true or false\nwith true, the default, nothing is freed")
        if only is not None and not (isinstance(only, list) and all(isinstance(each, str) for each in only)):
            raise BadRequest("`only` has to be a list of strings\ntake the titles of an answer with dry_run")
        in_use = await self.repositories.rows.bentos_of_revisions()
        found = await (self.garbage.unused(in_use) if dry_run else self.garbage.free(in_use, only))
        return JSONResponse(view(found, dry_run))


def view(found: list[Unused], dry_run: bool) -> dict[str, Any]:
    items = [{**asdict(each), "title": each.title} for each in found]
    return {"dry_run": dry_run, "size": sum(each.size for each in found), "items": items}
