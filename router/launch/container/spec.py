"""What a container is made with, as the engine's API takes it. Pure: a test reads it as a whole.

Closed unless said otherwise: no network, no capability, no new privileges, a root that cannot be written, a user that
is not root, and bounds on memory, processors and processes. Seccomp is the engine's default profile, and the filter
that the first process adds (`torpor/host/seal.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.launch.container import devices
from router.launch.container.api import Kind
from router.launch.forkserver import SINGLE_THREADED
from router.shell.plan import Plan

PLATFORM = "torpor.platform"  # label: the id of the platform whose container it is
ENDPOINT = "torpor.endpoint"
REVISION = "torpor.revision"
USER = 65532  # uid and gid in the container of a router that is root: nobody's on the host
SCRATCH = 256 << 20  # bytes of /tmp, which is memory
TORPOR = "/opt/torpor"  # where the host that serves is, in the container
RUN = "/run/torpor"  # the container's own run folder: its control socket and its replicas' secrets
CONTROL = f"{RUN}/control"


@dataclass(frozen=True, slots=True)
class Place:
    """What of the host a container sees."""

    run: Path  # its run folder
    state: Path  # of its endpoint: outlives it, and can be written
    torpor: Path  # the package
    models: Path  # BentoML's home, in which the router's own model store is


def config(plan: Plan, kind: Kind, platform: str, place: Place, memory: int) -> dict[str, Any]:
    """The body of the request that makes a container. `memory`: bytes that one may take where its plan says nothing."""
    box = plan.contained
    assert box is not None
    user, userns = identity(kind)
    limit = (box.memory or memory) * (plan.replicas if box.memory else 1)
    binds = [
        bind(place.torpor, f"{TORPOR}/torpor"),
        bind(place.run, RUN),
        bind(place.state, str(place.state), write=True),
        *(bind(each, str(each)) for each in mounted(plan)),
    ]
    host: dict[str, Any] = {
        "Binds": binds,
        "Tmpfs": tmpfs(place, (str(place.state), *map(str, mounted(plan)))),
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "Memory": limit,
        "MemorySwap": limit,  # no swap beside
        "PidsLimit": box.pids,
        "IpcMode": "private",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "RestartPolicy": {"Name": "no"},
    }
    host |= devices.request(kind, plan.cards)
    if userns:
        host["UsernsMode"] = userns
    if not box.egress:
        host["NetworkMode"] = "none"
    if box.cpus:
        host["NanoCpus"] = int(box.cpus * 1e9)
    return {
        "Image": box.image,
        "Entrypoint": ["python", "-m", "torpor.host.forkserver", "--control-path", CONTROL],
        "Cmd": [],
        "Env": environment(place, devices.environment(kind, plan.cards)),
        "User": user,
        "WorkingDir": "/",
        "Labels": {PLATFORM: platform, ENDPOINT: plan.endpoint, REVISION: str(plan.revision)},
        "StopSignal": "SIGKILL",  # its replicas were told before
        "HostConfig": host,
    }


def alike(made: Plan, wanted: Plan) -> bool:
    """Whether a container that was made for one plan is what another wants.

    Their revisions do not tell: an endpoint that was removed and is deployed again counts them from one.
    """
    return _shape(made) == _shape(wanted)


def _shape(plan: Plan) -> tuple[object, ...]:
    return plan.revision, plan.contained, plan.replicas, plan.cards, mounted(plan)


def environment(place: Place, cards: Mapping[str, str]) -> list[str]:
    """Nothing of the endpoint's own: what a replica is told travels through its socket, out of the engine's sight."""
    told = {
        "PYTHONPATH": TORPOR,
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",
        "USER": "torpor",  # the user has no name in the image, and libraries ask for one
        "BENTOML_HOME": str(place.models),
        "BENTOML_DO_NOT_TRACK": "True",
        **dict.fromkeys(SINGLE_THREADED, "1"),
        **cards,
    }
    return [f"{name}={value}" for name, value in told.items()]


def identity(kind: Kind) -> tuple[str, str]:
    """The user in the container and the mode of its user namespace.

    What the router owns has to be readable: where it is not root, the user is its own, in a namespace where the engine
    has one.
    """
    uid, gid = os.getuid(), os.getgid()
    if kind.rootless:
        return (f"{uid}:{gid}", "keep-id") if kind.name == "podman" else ("0:0", "")  # root there is the router's user
    return (f"{uid}:{gid}", "") if uid else (f"{USER}:{USER}", "")


def mounted(plan: Plan) -> list[Path]:
    """The bento and its models: at their own places, so that links among them lead where they should."""
    assert plan.contained is not None
    return list(dict.fromkeys([plan.bento or plan.folder, *plan.contained.models]))


def tmpfs(place: Place, binds: Iterable[str]) -> dict[str, str]:
    """Folders in memory. Root's home is closed to others in most images, with all that would be mounted below it."""
    small = "rw,nosuid,nodev,size=1m,mode=1777"
    found = {"/tmp": f"rw,nosuid,nodev,size={SCRATCH},mode=1777", str(place.models): small}
    if any(each.startswith("/root/") for each in (*binds, str(place.models))):
        found["/root"] = small
    return found


def bind(source: Path, target: str, write: bool = False) -> str:
    return f"{source}:{target}:{'rw' if write else 'ro'}"
