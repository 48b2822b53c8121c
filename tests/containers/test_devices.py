"""Devices handed to containers, by a real engine that knows CDI: the devices are /dev/zero and the like, not cards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.launch.container import devices, libpod
from router.launch.container.api import ContainerApi, Kind
from router.launch.container.spec import Place, config
from router.shell.plan import Contained, Plan
from tests.containers.engine import asked
from torpor.errors import InternalError

LABEL = "torpor.platform"
# What differs from one container to the next, and what the engine's two APIs call by another name.
PASSING = {"Type", "Path", "CgroupPath", "ID", "Id", "Created", "Hostname", "IOMaximumIOps", "IOMaximumBandwidth"}
SEEN = (
    "grep -E 'Cap|Seccomp|NoNew|^Uid|^Gid|Groups' /proc/self/status; cut -d' ' -f5,6 /proc/self/mountinfo | sort;"
    "umask; ls /dev /sys/class/net; cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
)


async def container(engine: Path, image: str, cards: tuple[str, ...]) -> list[str]:
    """What of the cards one sees that was given these."""
    api = ContainerApi(engine)
    try:
        kind = await api.kind()
        env = [f"{name}={value}" for name, value in devices.environment(kind, cards).items()]
        host = {"NetworkMode": "none", "ReadonlyRootfs": True, **devices.request(kind, cards)}
        told = {"Image": image, "Entrypoint": ["sh", "-c"], "Cmd": ["ls /dev; env"], "Env": env, "User": "65532:65532"}
        labels = {LABEL: "devices-test"}
        made = await api.create("torpor-devices-test", {**told, "Labels": labels, "HostConfig": host})
        try:
            await api.start(made)
            assert await api.wait(made) == 0
            lines = await api.lines(made, 1000)
        finally:
            await api.remove(made)
    finally:
        await api.close()
    return [line for line in lines if line.startswith(("GPU-", "NVIDIA"))]


def test_a_container_sees_its_own_cards_and_no_others(engine: Path, base_image: str, card_devices: None) -> None:
    seen = {
        cards: asyncio.run(container(engine, base_image, cards))
        for cards in [(), ("GPU-a",), ("GPU-b",), ("GPU-a", "GPU-b")]
    }
    assert seen == {cards: [*cards, "NVIDIA_VISIBLE_DEVICES=void"] for cards in seen}


def test_podmans_two_apis_make_the_same_container(
    engine: Path, base_image: str, tmp_path: Path, swept: Callable[[str], None]
) -> None:
    """All that is asked for of a replica's container is asked for in either."""
    version = asked(engine, "GET", "/version").json()
    kind = Kind("podman", version["Version"], False, True)
    if "podman" not in json.dumps(version).lower() or not devices.aside(kind):
        return  # it has one that matters
    swept(f"{LABEL}=devices-test")
    for folder in ("run", "state", "src", "torpor", "models"):
        (tmp_path / folder).mkdir()
    for box in (Contained(base_image, cpus=0.5, pids=100), Contained(base_image, memory=1 << 28, egress=True)):
        plan = Plan("e", 1, tmp_path / "src", None, "service:E", Path("python3"), contained=box)
        place = Place(tmp_path / "run", tmp_path / "state", tmp_path / "torpor", tmp_path / "models")
        told = config(plan, kind, "devices-test", place, 1 << 30) | {"Entrypoint": ["sh", "-c"], "Cmd": ["sleep 60"]}
        by_docker = asked(engine, "POST", "/containers/create", json=told)
        by_podman = asked(engine, "POST", f"/{libpod.PATH}", json=libpod.spec("torpor-devices-own", told))
        both = [looked(engine, answer.json()["Id"]) for answer in (by_docker, by_podman)]
        assert both[0] == both[1]


def looked(engine: Path, name: str) -> dict[str, Any]:
    """What the engine says of a container, and what that sees of itself; it is removed."""
    asked(engine, "POST", f"/containers/{name}/start")
    told = asked(engine, "GET", f"/containers/{name}/json").json()
    run = {"AttachStdout": True, "Tty": True, "Cmd": ["sh", "-c", SEEN]}
    exec_id = asked(engine, "POST", f"/containers/{name}/exec", json=run).json()["Id"]
    seen = asked(engine, "POST", f"/exec/{exec_id}/start", json={"Detach": False, "Tty": True}).content
    asked(engine, "DELETE", f"/containers/{name}", params={"force": "true"})
    assert b"CapBnd:" in seen
    env = sorted(each for each in told["Config"]["Env"] if not each.startswith("HOSTNAME="))
    return {
        "config": steady(told["Config"]) | {"Env": env},
        "host": steady(told["HostConfig"]),
        "networks": sorted(told["NetworkSettings"]["Networks"]),
        "mounts": sorted((m["Type"], m["Source"], m["Destination"], m["RW"]) for m in told["Mounts"]),
        "seen": sorted(seen.replace(name.encode(), b"").splitlines()),
    }


def steady(told: dict[str, Any]) -> dict[str, Any]:
    found = {key: steady(each) if isinstance(each, dict) else each for key, each in told.items() if key not in PASSING}
    return {key: sorted(each) if key == "Binds" else each for key, each in found.items()}


def test_what_podmans_own_api_is_not_told_of_is_refused() -> None:
    told = {"Image": "i", "HostConfig": {"CapDrop": ["ALL"], "Sysctls": {}}}
    with pytest.raises(InternalError, match="is not told of Sysctls\n"):
        libpod.spec("c", told)
    with pytest.raises(InternalError, match="is not told of SecurityOpt"):
        libpod.spec("c", {"Image": "i", "HostConfig": {"SecurityOpt": ["seccomp=x"]}})
