"""Who asks, and where: the user, the organisation, the cluster, and what kinds of replicas its machine has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from router.api.cloud.shapes import CLUSTER, NAMESPACE, cluster, listing, organisation, resource, user
from router.api.session import Sessions
from router.launch.cards import Card
from router.launch.machine import SHARE, cores, memory_total
from torpor.errors import NotFound

OWNER = "torpor"  # who asks without a token


@dataclass(frozen=True, slots=True)
class WhoRoutes:
    """A self-hosted platform has one organisation with one cluster: its machine. `memory`: bytes that its endpoints
    may take together, None for the share of the machine. `cards`: those that are handed out.
    """

    sessions: Sessions
    memory: int | None
    cards: Sequence[Card]

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
            "resource_instances": self._types(),
        }
        return JSONResponse(cluster() | full)

    async def instance_types(self, request: Request) -> Response:
        check_cluster(request.query_params.get("cluster", ""))
        return JSONResponse(self._types())

    def _types(self) -> list[dict[str, Any]]:
        return instance_types(cores(), self.memory or int(SHARE * memory_total()), self.cards)


def check_cluster(name: str) -> None:
    """Raises NotFound for another than this one; unsaid is this one."""
    if name not in ("", CLUSTER):
        raise NotFound(f"there is no cluster {name!r}\nthis platform is one machine, the cluster {CLUSTER!r}")


def instance_types(cores: int, memory: int, cards: Sequence[Card]) -> list[dict[str, Any]]:
    """What a replica may be given: `cpu.1`, `cpu.2`, ... by threads, doubled, up to `cpu.max`; `gpu.1`, ... by cards.

    A replica asks for its threads, and may take all the memory that endpoints have: torpor measures what replicas take
    instead of setting it apart. `memory`: bytes that all endpoints may take.
    """
    found = [instance(f"cpu.{count}", f"{count} of {cores} cores", count, memory) for count in doubled(cores)]
    found.append(instance("cpu.max", f"all {cores} cores", cores, memory))
    kinds = " or ".join(dict.fromkeys(card.name for card in cards))
    for count in [*doubled(len(cards)), len(cards)] if cards else []:
        made = instance(f"gpu.{count}", f"{count} of {len(cards)} GPUs ({kinds}), all {cores} cores", cores, memory)
        least = min(card.memory for card in cards)
        made["config"] |= {"group": "gpu", "gpu_config": {"type": kinds, "memory": mebibytes(least)}}
        for asked in made["config"]["resources"].values():
            asked["gpu"] = str(count)
        found.append(made)
    return found


def doubled(most: int) -> list[int]:
    """1, 2, 4, ... below `most`."""
    return [1 << power for power in range(most.bit_length()) if 1 << power < most]


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
