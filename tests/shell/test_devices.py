"""How engines are asked for graphics cards: against recorded requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.launch.container.api import Kind
from router.launch.container.devices import environment, number, request
from torpor.errors import EngineFailed

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded/devices.json").read_text())


@pytest.mark.parametrize("recorded", RECORDED, ids=[each["engine"] for each in RECORDED])
def test_an_engine_is_asked_as_recorded(recorded: dict[str, Any]) -> None:
    kind = Kind(**recorded["kind"])
    assert request(kind, recorded["cards"]) == recorded["HostConfig"]
    assert environment(kind, recorded["cards"]) == recorded["Env"]


@pytest.mark.parametrize("version", ["4.3.1", "4.9.3", "5.3.2"])
def test_an_engine_that_would_leave_the_card_out_is_not_asked(version: str) -> None:
    with pytest.raises(EngineFailed, match=f"podman {version} would make the container without its GPU.*5.4\n"):
        request(Kind("podman", version, False, True), ["GPU-a"])


@pytest.mark.parametrize(
    ("version", "read"), [("5.4.0", (5, 4, 0)), ("5.10.1-rhel", (5, 10, 1)), ("28.2.2+dfsg", (28, 2, 2)), ("dev", ())]
)
def test_versions_are_compared_by_their_numbers(version: str, read: tuple[int, ...]) -> None:
    assert number(version) == read
