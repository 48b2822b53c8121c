"""How engines are asked for graphics cards: against recorded requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.launch.container import devices
from router.launch.container.api import Kind
from router.launch.container.devices import aside, environment, number, request
from torpor.errors import EngineFailed

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded/devices.json").read_text())


@pytest.mark.parametrize("recorded", RECORDED, ids=[each["engine"] for each in RECORDED])
def test_an_engine_is_asked_as_recorded(recorded: dict[str, Any]) -> None:
    kind = Kind(**recorded["kind"])
    assert request(kind, recorded["cards"]) == recorded["HostConfig"]
    assert environment(kind, recorded["cards"]) == recorded["Env"]


def test_an_engine_without_cdi_is_not_asked() -> None:
    with pytest.raises(EngineFailed, match=r"podman 4\.0\.3 hands no GPU over: it knows CDI from 4\.1 on\n"):
        request(Kind("podman", "4.0.3", False, True), ["GPU-a"])


@pytest.mark.parametrize(
    ("name", "version", "own"),
    [("podman", "4.3.1", True), ("podman", "5.3.2", True), ("podman", "5.4.0", False), ("docker", "24.0.7", False)],
)
def test_podman_is_asked_in_its_own_api_where_the_other_would_leave_the_card_out(
    name: str, version: str, own: bool
) -> None:
    assert aside(Kind(name, version, False, True)) is own


@pytest.mark.parametrize(
    ("info", "api", "named"),
    [
        ({}, "1.41", False),
        ({"CDISpecDirs": []}, "1.44", False),
        ({"CDISpecDirs": ["/etc/cdi"]}, "1.44", True),
        ({"CDISpecDirs": ["/etc/cdi"]}, "1.50", False),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": [{"Source": "cdi", "ID": "a.b/net=0"}]}, "1.50", False),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": [{"ID": "nvidia.com/gpu=GPU-a"}]}, "1.50", True),
    ],
)
def test_docker_is_asked_by_cdis_names_where_it_has_them(info: dict[str, Any], api: str, named: bool) -> None:
    assert devices.named(info, api) is named


@pytest.mark.parametrize(
    ("version", "read"), [("5.4.0", (5, 4, 0)), ("5.10.1-rhel", (5, 10, 1)), ("28.2.2+dfsg", (28, 2, 2)), ("dev", ())]
)
def test_versions_are_compared_by_their_numbers(version: str, read: tuple[int, ...]) -> None:
    assert number(version) == read
