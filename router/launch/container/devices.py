"""How an engine is asked for graphics cards: the part of a container's configuration that hands them over. Pure.

Cards are named by their UUID, which a restart and a card that falls off the bus leave as it is. Three ways:

    CDI         a device's name, `nvidia.com/gpu=UUID`, in a device request of the driver `cdi`. The specification
                that says what it is comes from `nvidia-ctk cdi generate`: by UUID since its version 1.15
                (NVIDIA/nvidia-container-toolkit#314), made at boot by a unit of its own since 1.18.
                Docker from 25 where the daemon's feature `cdi` is on, from 28.2 by default (moby/moby#45134, #49963).
                Podman from 5.4. Before, from 4.1 on, in its own API only (`libpod.py`): its Docker API takes no notice
                of the request and makes the container without a card (containers/podman#19338; seen with 4.3.1).
    nvidia      Docker's own driver, from 19.03 on, where nvidia-container-runtime-hook is installed
                (moby, daemon/nvidia_linux.go): a device request of the driver `nvidia`.

NVIDIA_VISIBLE_DEVICES is the hook's word for what to add. NVIDIA's images have it as `all`, so that where the hook is
part of the engine's default runtime a container would see every card: what has none by the hook has `void`.

Verified by recorded requests (`tests/shell/recorded/devices.json`), and with podman 4.3.1 and a CDI specification of
other devices; no machine with a card was at hand. Where SELinux is enforced, containers may use devices only with
`setsebool -P container_use_devices true`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torpor.errors import EngineFailed

if TYPE_CHECKING:
    from router.launch.container.api import Kind

KIND = "nvidia.com/gpu"
CDI_PODMAN = (4, 1)  # knows CDI
CDI_COMPATIBLE = (5, 4)  # and its Docker API hands on what is asked for
LISTED = (1, 50)  # of Docker's API
VISIBLE = "NVIDIA_VISIBLE_DEVICES"


def request(kind: Kind, cards: Sequence[str]) -> dict[str, Any]:
    """The keys of HostConfig that hand over these cards, by UUID; none for none. Raises EngineFailed."""
    if not cards:
        return {}
    if kind.name == "podman" and number(kind.version) < CDI_PODMAN:
        least = ".".join(map(str, CDI_PODMAN))
        raise EngineFailed(
            f"podman {kind.version} hands no GPU over: it knows CDI from {least} on\n"
            f"use podman {least} or later, or docker"
        )
    if kind.cdi:
        return {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [f"{KIND}={card}" for card in cards]}]}
    # With a driver named, capabilities choose what of the driver's libraries comes with the device.
    capabilities = [["gpu", "compute", "utility"]]
    return {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": list(cards), "Capabilities": capabilities}]}


def named(info: Mapping[str, Any], api: str) -> bool:
    """Whether Docker has cards by CDI's names, of its answers to `info` and the version of its API.

    On by default says nothing about a specification being there; from 1.50 on it tells the devices that it found.
    """
    if not info.get("CDISpecDirs"):
        return False
    found = info.get("DiscoveredDevices") or ()
    return number(api) < LISTED or any(str(each.get("ID", "")).startswith(f"{KIND}=") for each in found)


def aside(kind: Kind) -> bool:
    """Whether the engine has to be asked in its own API for a container with cards."""
    return kind.name == "podman" and number(kind.version) < CDI_COMPATIBLE


def environment(kind: Kind, cards: Sequence[str]) -> dict[str, str]:
    """Variables of any container, with or without cards, that go before its own and its image's."""
    by_hook = bool(cards) and not kind.cdi
    return {VISIBLE: ",".join(cards) if by_hook else "void"}


def number(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 5.4.0-rc1 is 5, 4, 0."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
