"""Who asks, and where: the user, the organisation, the cluster, and what kinds of replicas its machine has room for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.cloud.shapes import CLUSTER, NAMESPACE, cluster, listing, organisation, resource, user
from router.api.session import Sessions
from router.launch.machine import SHARE, Gpu, cores, gpus, memory_total
from torpor.errors import NotFound

OWNER = "torpor"  # who asks without a token


@dataclass(frozen=True, slots=True)
class WhoRoutes:
    """A self-hosted platform has one organisation with one cluster: its machine. `memory`: bytes that its endpoints
    may take together, None for the share of the machine.
    """

    sessions: Sessions
    memory: int | None

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/v1/auth/current", self.current, methods=["GET"]),
            Route("/api/v1/current_org", self.organisation, methods=["GET"]),
            Route("/api/v1/clusters", self.clusters, methods=["GET"]),
            Route("/api/v1/clusters/{cluster}", self.cluster, methods=["GET"]),
            Route("/api/v1/instance_types", self.instance_types, methods=["GET"]),
        ]

    async def current(self, request: Request) -> Response:
        holder = self.sessions.asker(request)
        return JSONResponse(user(holder.name if holder is not None else OWNER))

    async def organisation(self, request: Request) -> Response:
        self.sessions.asker(request)
        return JSONResponse(organisation())

    async def clusters(self, request: Request) -> Response:
        return listing(request, [CLUSTER], lambda _: cluster())

    async def cluster(self, request: Request) -> Response:
        check_cluster(request.path_params["cluster"])
        full = {
            "organization": organisation(),
            "kube_config": "",  # there is no Kubernetes behind it
            "config": {"default_deployment_kube_namespace": NAMESPACE},
            "grafana_root_path": "",
            "resource_instances": await self._types(),
        }
        return JSONResponse(cluster() | full)

    async def instance_types(self, request: Request) -> Response:
        check_cluster(request.query_params.get("cluster", ""))
        return JSONResponse(await self._types())

    async def _types(self) -> list[dict[str, Any]]:
        room = self.memory or int(SHARE * memory_total())
        return instance_types(cores(), room, await asyncio.to_thread(gpus))


def check_cluster(name: str) -> None:
    """Raises NotFound for another than this one; unsaid is this one."""
    if name not in ("", CLUSTER):
        raise NotFound(f"there is no cluster {name!r}\nthis platform is one machine, the cluster {CLUSTER!r}")


def instance_types(cores: int, memory: int, gpus: list[Gpu]) -> list[dict[str, Any]]:
    """What a replica may be given: `cpu.1`, `cpu.2`, ... by threads, doubled, up to `cpu.max`; with GPUs, those too.

    A replica asks for its threads, and may take all the memory that endpoints have: torpor measures what replicas take
    instead of setting it apart. `memory`: bytes that all endpoints may take.
    """
    steps = [1 << power for power in range(cores.bit_length()) if 1 << power < cores]
    found = [instance(f"cpu.{count}", f"{count} of {cores} cores", count, memory) for count in steps]
    found.append(instance("cpu.max", f"all {cores} cores", cores, memory))
    for gpu in gpus:
        name = f"gpu.{gpu.index}"
        made = instance(name, f"{gpu.name}, all {cores} cores", cores, memory)
        made["config"] |= {"group": "gpu", "gpu_config": {"type": gpu.name, "memory": mebibytes(gpu.memory)}}
        for asked in made["config"]["resources"].values():
            asked["gpu"] = "1"
        found.append(made)
    return found


def instance(name: str, says: str, threads: int, memory: int) -> dict[str, Any]:
    amounts = {"cpu": str(threads), "memory": mebibytes(memory), "gpu": None}
    return {
        **resource("resource_instance", name, name, 0.0),
        "display_name": name,
        "description": says,
        "config": {
            "group": "cpu",
            "resources": {"requests": {**amounts, "memory": None}, "limits": amounts},
            "price": "your own machine",
            "node_selectors": {},
            "gpu_config": None,
        },
    }


def mebibytes(size: int) -> str:
    return f"{size >> 20}Mi"
