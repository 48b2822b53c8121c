"""What the machine has, as torpor tells it: its graphics cards by the driver's tool, and replicas by instance types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.api.cloud.who import instance_types
from router.launch.machine import Gpu, gpus

GIB = 1 << 30


def driver(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `nvidia-smi` of ours, alone on the path."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_cards_are_those_that_the_drivers_tool_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "0, NVIDIA L4, 23034\\n1, NVIDIA H100 80GB HBM3, 81559\\n2, Unknown, [N/A]\\nnoise"
    driver(tmp_path, f'printf "{told}\\n"', monkeypatch)
    l4, h100 = Gpu(0, "NVIDIA L4", 23034 << 20), Gpu(1, "NVIDIA H100 80GB HBM3", 81559 << 20)
    assert gpus() == [l4, h100, Gpu(2, "Unknown", 0)]


@pytest.mark.parametrize("script", ["echo '0, NVIDIA L4, 23034'; exit 9", "echo 'No devices were found'"])
def test_a_driver_that_fails_has_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    driver(tmp_path, script, monkeypatch)
    assert gpus() == []


def test_without_the_tool_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []


@pytest.mark.parametrize(
    ("cores", "names"),
    [(1, ["cpu.max"]), (2, ["cpu.1", "cpu.max"]), (6, ["cpu.1", "cpu.2", "cpu.4", "cpu.max"])],
)
def test_instance_types_double_up_to_all_cores(cores: int, names: list[str]) -> None:
    found = instance_types(cores, 8 * GIB, [])
    assert [each["name"] for each in found] == names
    asked: list[dict[str, Any]] = [each["config"]["resources"] for each in found]
    assert asked[-1]["requests"] == {"cpu": str(cores), "memory": None, "gpu": None}
    assert [each["limits"]["memory"] for each in asked] == ["8192Mi"] * len(names)


def test_a_card_is_an_instance_type_of_its_own() -> None:
    card = instance_types(4, GIB, [Gpu(0, "NVIDIA L4", 24 * GIB)])[-1]
    assert (card["name"], card["config"]["group"]) == ("gpu.0", "gpu")
    assert card["config"]["gpu_config"] == {"type": "NVIDIA L4", "memory": "24576Mi"}
    assert [each["gpu"] for each in card["config"]["resources"].values()] == ["1", "1"]
