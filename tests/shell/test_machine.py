"""What the machine has, as BentoCloud's API tells it: replicas by instance types, of processors and graphics cards."""

from __future__ import annotations

from typing import Any

import pytest

from router.api.cloud.body import Taken, read_body
from router.api.cloud.who import instance_types
from router.core.settings import Settings
from router.launch.cards import Card

GIB = 1 << 30


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


def test_cards_are_instance_types_by_their_number() -> None:
    l4 = [Card(index, f"GPU-{index}", "NVIDIA L4", 24 * GIB) for index in range(3)]
    found = [each for each in instance_types(4, GIB, l4) if each["config"]["group"] == "gpu"]
    assert [each["name"] for each in found] == ["gpu.1", "gpu.2", "gpu.3"]
    assert found[0]["config"]["gpu_config"] == {"type": "NVIDIA L4", "memory": "24576Mi"}
    assert [each["config"]["resources"]["limits"]["gpu"] for each in found] == ["1", "2", "3"]


def test_of_different_cards_the_least_memory_counts() -> None:
    two = [Card(0, "GPU-0", "NVIDIA H100", 80 * GIB), Card(1, "GPU-1", "NVIDIA L4", 24 * GIB)]
    one = instance_types(4, GIB, two)[-2]
    assert one["config"]["gpu_config"] == {"type": "NVIDIA H100 or NVIDIA L4", "memory": "24576Mi"}


@pytest.mark.parametrize(
    ("instance", "gpu", "launcher"), [("gpu.1", 1, "container"), ("gpu.12", 12, "container"), ("cpu.1", 0, "process")]
)
def test_an_instance_type_with_cards_is_a_container_with_them(instance: str, gpu: int, launcher: str) -> None:
    body = {"bento": "e:1", "cluster": "", "services": {"e": {"instance_type": instance, "envs": []}}}
    settings = read_body(body, "e", Taken(Settings()), "someone").settings
    assert (settings.gpu, settings.launcher) == (gpu, launcher)
