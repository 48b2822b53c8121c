"""The body of a deployment, as `bentoml deploy` sends it: checked by BentoML's own types, then a request of ours."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from router.config import parse_settings
from router.core.access import notes as of_access
from router.core.settings import Settings
from router.core.split import KINDS, Rule
from router.launch.machine import cores
from router.shell.request import Part, Request
from torpor.errors import BadRequest

# What torpor makes of a service's settings; whatever else is there is kept and told back.
WINDOW_MAX = 3600  # seconds of `scale_down_stabilization_window`
# Instance types of `router/api/cloud/who.py`.
CPU = re.compile(r"cpu\.(\d{1,3}|max)")
GPU = re.compile(r"gpu\.([1-9]\d?)")


@dataclass(frozen=True, slots=True)
class Taken:
    """How bodies are taken. `respect_scaling_min`: whether 1 and 1 replicas are one that is kept awake; `opens`:
    whether an endpoint may ask nobody for a token.
    """

    defaults: Settings
    respect_scaling_min: bool = False
    opens: bool = True


def structured(body: dict[str, Any]) -> Any:
    """Raises BadRequest with every place at which the body is not what the command line's own types allow."""
    from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
    from bentoml._internal.utils.cattr import bentoml_cattr
    from cattrs import ClassValidationError, transform_error

    try:
        return bentoml_cattr.structure(body, CreateDeploymentSchema)
    except ClassValidationError as error:
        faults = "; ".join(fault.replace(" @ $", " at ") for fault in transform_error(error))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        faults = str(error) or type(error).__name__
    raise BadRequest(f"the deployment is not valid: {faults}\nmend the flags or the file that it comes from")


def read_body(body: dict[str, Any], name: str | None, taken: Taken, creator: str) -> Request:
    """`name`: of a deployment that is there; a new one without a name is given one. Raises BadRequest."""
    found = structured(body)
    bento = str(found.bento)
    if name is None:
        name = found.name or f"{bento.partition(':')[0].replace('_', '-').lower()}-{secrets.token_hex(2)}"
    notes: list[str] = []
    kept = {key: value for key, value in body.items() if key not in ("bento", "name")}
    spec = {"secrets": found.secrets or [], "access": found.access_authorization, "body": kept}
    env, settings = _of_service(bento, found.services, found.envs, taken, notes)
    return Request(
        name=name,
        bento=bento,
        env=env,
        settings=settings,
        spec=spec,
        creator=creator,
        versions=_versions(found, taken, notes),
        notes=(*notes, *of_access(found.access_authorization, taken.opens)),
    )


def _versions(found: Any, taken: Taken, notes: list[str]) -> tuple[Part, ...]:
    canary = found.canary
    if canary is None or not canary.versions:
        return ()
    kind = canary.route_type or "random"
    if kind not in KINDS:
        raise BadRequest(f"route_type {kind!r} is unknown\nuse {', '.join(KINDS)}")
    parts = []
    for name, version in canary.versions.items():
        bento = version.bento or str(found.bento)
        env, settings = _of_service(bento, version.services or found.services, version.envs, taken, notes)
        spec = {"secrets": version.secrets or found.secrets or [], "access": found.access_authorization}
        rule = Rule(kind, canary.route_by or "", version.weight or 0)
        parts.append(Part(bento, env, settings, spec, name, rule))
    return tuple(parts)


def _of_service(
    bento: str, services: dict[str, Any], envs: Any, taken: Taken, notes: list[str]
) -> tuple[dict[str, str], Settings]:
    """Variables and settings of the entry service: those that it depends on run in its replicas."""
    entry = bento.partition(":")[0]
    service = services.get(entry) or (next(iter(services.values())) if len(services) == 1 else None)
    env = {each.name: str(each.value or "") for each in envs or () if each is not None}
    if service is None:
        return env, taken.defaults
    env |= {each.name: str(each.value or "") for each in service.envs or () if each is not None}
    wanted = {**_scaling(service.scaling, taken, notes), **_overrides(service.config_overrides or {})}
    if service.cold_start_timeout:
        wanted["start_within"] = service.cold_start_timeout
    if service.instance_type and (match := CPU.fullmatch(service.instance_type)):
        wanted["threads"] = cores() if match[1] == "max" else max(1, int(match[1]))
    if service.instance_type and (match := GPU.fullmatch(service.instance_type)):
        wanted |= {"gpu": int(match[1]), "launcher": "container", "threads": cores()}
    return env, parse_settings(wanted, taken.defaults)


def _scaling(scaling: Any, taken: Taken, notes: list[str]) -> dict[str, Any]:
    if scaling is None:
        return {}
    least, most = scaling.min_replicas, scaling.max_replicas
    if least == most == 1 and not taken.respect_scaling_min:
        notes.append("1 to 1 replicas, which the bentoml command line sends unasked, are taken as 0 to 1")
        least = 0
    wanted: dict[str, Any] = {}
    if least is not None:
        wanted["min_replicas"] = least
    if most is not None:
        wanted["max_replicas"] = most
    if least is not None and most is not None and least > most:
        raise BadRequest(f"scaling from {least} to {most} replicas\nname at least as many at most as at least")
    window = scaling.policy.scale_down_stabilization_window if scaling.policy else None
    if window:
        wanted["scale_window"] = min(WINDOW_MAX, max(1, window))
    return wanted


def _overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    """Of BentoML's configuration that which decides how many calls a replica is given; and, in a part of its own that
    BentoML does not know, `torpor`, any of torpor's settings.
    """
    traffic, own = overrides.get("traffic"), overrides.get("torpor") or {}
    if not isinstance(own, dict):
        raise BadRequest(f"config_overrides.torpor is {own!r}\ngive settings by name, such as launcher: container")
    concurrency = traffic.get("concurrency") if isinstance(traffic, dict) else None
    return {**({"concurrency": concurrency} if isinstance(concurrency, int) and concurrency > 0 else {}), **own}
