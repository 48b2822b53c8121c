"""`/api/v2/deployments` of BentoCloud's API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.cloud.body import Taken, read_body
from router.api.cloud.shapes import NAMESPACE, cluster, listing, resource, user
from router.api.read import read_object
from router.core.catalog import Registered
from router.core.split import KINDS
from router.shell.deployments import Deployments, unknown
from torpor.errors import BadRequest, NotFound

ROOT = "/api/v2/deployments"
# The keys of a deployment's configuration (`DeploymentConfigSchema`), for endpoints that were deployed in another way.
CONFIG = ("access_authorization", "envs", "labels", "secrets", "services", "canary")


@dataclass(frozen=True, slots=True)
class DeploymentRoutes:
    """`url_of`: where an endpoint is reached, with nothing behind the port. `bento_of`: a bento with its repository,
    as the API shows it, None for one that is not here. `creator_of`: who asks.
    """

    deployments: Deployments
    taken: Taken
    url_of: Callable[[str, int | None], str]
    bento_of: Callable[[str], dict[str, Any] | None]
    creator_of: Callable[[Request], str]

    def routes(self) -> list[BaseRoute]:
        each = ROOT + "/{name}"
        return [
            Route(ROOT, self.list, methods=["GET"]),
            Route(ROOT, self.create, methods=["POST"]),
            Route(each, self.get, methods=["GET"]),
            Route(each, self.update, methods=["PUT"]),
            Route(each, self.delete, methods=["DELETE"]),
            Route(each + "/void_update", self.void_update, methods=["PUT", "POST"]),
            Route(each + "/terminate", self.terminate, methods=["POST"]),
            Route(each + "/files", self.no_files, methods=["GET", "POST", "DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        words = request.query_params.get("search", "") or request.query_params.get("q", "")
        names = [name for name in self.deployments.names() if words in name]
        return await asyncio.to_thread(listing, request, names, self._view)

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        if body.get("dev"):
            raise BadRequest("development deployments (`bentoml code`) are not offered here\nuse bentoml deploy")
        wanted = read_body(body, None, self.taken, self.creator_of(request))
        await self.deployments.create(wanted, body)
        return await self._full(wanted.name)

    async def get(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.deployments.check_known(name)
        return await self._full(name)

    async def update(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.deployments.check_known(name)
        body = await read_object(request)
        await self.deployments.update(read_body(body, name, self.taken, self.creator_of(request)), body)
        return await self._full(name)

    async def void_update(self, request: Request) -> Response:
        """The next revision, which is as the last one that was asked for."""
        name = request.path_params["name"]
        self.deployments.check_known(name)
        asked = self._asked(name)
        await self.deployments.update(read_body(asked, name, self.taken, self.creator_of(request)), asked)
        return await self._full(name)

    async def terminate(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self.deployments.terminate(name)
        return await self._full(name)

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.deployments.check_known(name)
        shown = await asyncio.to_thread(self._view, name)
        await self.deployments.delete(name)
        return JSONResponse(shown)

    async def no_files(self, request: Request) -> Response:
        raise NotFound("files of a development deployment are not kept here\nuse bentoml deploy")

    async def _full(self, name: str) -> Response:
        return JSONResponse(await asyncio.to_thread(self._view, name))

    def _asked(self, name: str) -> dict[str, Any]:
        """The last body that was asked for: what the command line builds its next update on. With its bento."""
        if (progress := self.deployments.under_way.get(name)) is not None:
            return progress.body
        if (fault := self.deployments.fault(name)) is not None:
            return dict(fault.asked["body"])
        entry = self.deployments.entry(name)
        if entry is None:
            raise unknown(name)
        return {**configured(entry), "bento": entry.bento}

    def _view(self, name: str) -> dict[str, Any]:
        """Blocks: it looks bentos up."""
        entry, progress = self.deployments.entry(name), self.deployments.under_way.get(name)
        fault = self.deployments.faults.get(name)
        asked = self._asked(name)
        creator = progress.request.creator if progress else fault.asked.get("creator", "") if fault else ""
        creator = creator or (entry.creator if entry else "")
        port = progress.request.settings.port if progress else entry.settings.port if entry else None
        made = entry.created_at if entry else progress.began_at if progress else fault.created_at if fault else 0.0
        uid = entry.uid if entry else progress.request.uid if progress else fault.uid if fault else name
        changed = progress.began_at if progress else entry.deployed_at if entry else made
        head = resource("deployment", name, uid, made, changed, asked.get("labels") or ())
        routing = routing_of(asked.get("canary"))
        return {
            **head,
            "status": str(self.deployments.status(name)),
            "kube_namespace": NAMESPACE,
            "creator": user(creator or "torpor"),
            "cluster": cluster(),
            "manifest": {"dev": False, "routing": routing},
            "urls": [self.url_of(name, port)],
            "latest_revision": self._revision(name, uid, changed, asked, creator or "torpor"),
        }

    def _revision(self, name: str, uid: str, at: float, asked: dict[str, Any], creator: str) -> dict[str, Any]:
        entry = self.deployments.entry(name)
        number = entry.revision if entry else 0
        if name in self.deployments.under_way or self.deployments.fault(name) is not None:
            number += 1
        targets = [self._target("main", uid, at, asked, creator)]
        for version, config in ((asked.get("canary") or {}).get("versions") or {}).items():
            targets.append(self._target(version, f"{uid}-{version}", at, {"bento": asked["bento"], **config}, creator))
        return {
            **resource("deployment_revision", f"{name}-{number}", f"{uid}-{number}", at),
            "creator": user(creator),
            "status": "active",
            "targets": targets,
        }

    def _target(self, name: str, uid: str, at: float, config: dict[str, Any], creator: str) -> dict[str, Any]:
        rest = {key: value for key, value in config.items() if key not in ("bento", "name", "dev")}
        return {
            **resource("deployment", name, uid, at),
            "creator": user(creator),
            "config": rest,
            "bento": self.bento_of(str(config["bento"])),
        }


def configured(entry: Registered) -> dict[str, Any]:
    """The configuration of an endpoint: as it was asked for, or said in BentoCloud's words."""
    body = entry.spec.get("body")
    if isinstance(body, dict):
        return body
    settings = entry.settings
    scaling = {"min_replicas": settings.min_replicas, "max_replicas": settings.max_replicas}
    return {
        "access_authorization": bool(entry.access),
        "envs": [{"name": key, "value": value} for key, value in entry.env.items()],
        "secrets": list(entry.secrets),
        "services": {entry.bento.partition(":")[0]: {"scaling": scaling, "config_overrides": {}}},
    }


def routing_of(canary: dict[str, Any] | None) -> dict[str, Any] | None:
    """How calls are shared out, for `manifest.routing`."""
    if not canary or not canary.get("versions"):
        return None
    weights = {name: int(version.get("weight") or 0) for name, version in canary["versions"].items()}
    weights["main"] = max(0, 100 - sum(weights.values()))
    kind = canary.get("route_type") or KINDS[0]
    return {"route_type": kind, "route_by": canary.get("route_by"), "weights": weights}
