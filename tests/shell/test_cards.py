"""What the machine's graphics cards are, and what they hold: NVML's answers and errors, played by a fake of it."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys

import pynvml
import pytest

from router.core.events import Held
from router.launch.cards import Card, Cards
from tests.shell.fakes.nvml import GIB, FakeCard, FakeNvml
from torpor.errors import BadRequest


def seen(nvml: FakeNvml) -> Cards:
    cards = Cards(nvml)
    cards.look()
    return cards


def test_the_fake_is_like_the_real_module() -> None:
    """Every name that it has, with the same numbers, parameters and errors."""
    for name in (each for each in dir(FakeNvml) if each.lower().startswith("nvml")):
        fake, real = getattr(FakeNvml, name), getattr(pynvml, name)
        if isinstance(fake, int):
            assert fake == real, name
        elif name != "NVMLError":
            wanted = [p for p in inspect.signature(fake).parameters.values() if p.name != "self"]
            allowed = list(inspect.signature(real).parameters.values())
            assert len(wanted) <= len(allowed), name
            assert all(p.default is not p.empty for p in allowed[len(wanted) :]), name
    for value, words in FakeNvml.NVMLError.words.items():
        assert str(pynvml.NVMLError(value)) == words
        assert pynvml.NVMLError(value).value == value


def test_cards_are_told_in_the_drivers_order() -> None:
    nvml = FakeNvml(FakeCard("GPU-a", "NVIDIA L4"), FakeCard("GPU-b", "NVIDIA H100", total=80 * GIB, mig=0))
    l4, h100 = Card(0, "GPU-a", "NVIDIA L4", 24 * GIB), Card(1, "GPU-b", "NVIDIA H100", 80 * GIB)
    assert Cards(nvml).found() == [l4, h100]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (FakeNvml.NVML_ERROR_LIBRARY_NOT_FOUND, "is not installed"),
        (FakeNvml.NVML_ERROR_DRIVER_NOT_LOADED, "is not loaded"),
        (FakeNvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart the machine"),
        (FakeNvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidiactl"),
        (FakeNvml.NVML_ERROR_UNKNOWN, "Unknown Error"),
    ],
)
def test_where_the_driver_cannot_be_asked_there_are_none_and_it_is_said_why(fault: int, why: str) -> None:
    cards = Cards(FakeNvml(FakeCard("GPU-a"), fault=fault))
    assert cards.look() == []
    assert why in cards.why
    assert cards.measure() == {}


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.launch.cards.LIBRARY", "libnvidia-ml-none.so.1")
    cards = Cards()
    assert cards.found() == []
    assert "there is no libnvidia-ml-none.so.1" in cards.why


def test_a_card_in_mig_mode_is_told_and_not_handed_out(caplog: pytest.LogCaptureFixture) -> None:
    cards = Cards(FakeNvml(FakeCard("GPU-a", mig=1), FakeCard("GPU-b", mig=0)))
    assert ["MIG" in each.fault for each in cards.found()] == [True, False]
    with caplog.at_level(logging.WARNING, "torpor.cards"):
        assert [each.uuid for each in cards.look()] == ["GPU-b"]
    assert "GPU 0 (NVIDIA L4) is not handed out: it is in MIG mode" in caplog.text


def test_a_lost_card_is_not_handed_out_and_the_others_are() -> None:
    cards = Cards(FakeNvml(FakeCard("GPU-a", fault=FakeNvml.NVML_ERROR_GPU_IS_LOST), FakeCard("GPU-b")))
    lost, there = cards.found()
    assert lost.fault == "it does not answer: GPU is lost"
    assert there.fault == ""


def test_what_processes_hold_is_told_by_their_pid() -> None:
    """One that computes and draws is in both of the driver's lists; of one the driver knows nothing."""
    running: dict[int, int | None] = {7: 2 * GIB, 8: 3 * GIB, 9: None}
    card = FakeCard("GPU-a", used=7 * GIB, running=running, drawing={7: 2 * GIB, 10: GIB})
    by_pid = {7: 2 * GIB, 8: 3 * GIB, 9: 0, 10: GIB}
    assert seen(FakeNvml(card)).measure() == {"GPU-a": Held(7 * GIB, 24 * GIB, by_pid)}


def test_a_card_that_falls_off_the_bus_is_left_out_and_is_back_with_it() -> None:
    one, two = FakeCard("GPU-a", used=GIB), FakeCard("GPU-b", used=2 * GIB)
    cards = seen(FakeNvml(one, two))
    one.fault = FakeNvml.NVML_ERROR_GPU_IS_LOST
    assert cards.measure() == {"GPU-b": Held(2 * GIB, 24 * GIB)}
    one.fault = 0
    assert cards.measure() == {"GPU-a": Held(GIB, 24 * GIB), "GPU-b": Held(2 * GIB, 24 * GIB)}


def test_a_driver_that_was_loaded_anew_is_asked_anew() -> None:
    nvml = FakeNvml(FakeCard("GPU-a", used=GIB))
    cards = seen(nvml)
    assert cards.measure() == {"GPU-a": Held(GIB, 24 * GIB)}
    nvml.generation += 1
    assert cards.measure() == {}
    assert cards.measure() == {"GPU-a": Held(GIB, 24 * GIB)}
    cards.close()
    assert nvml.open == 0


def test_more_cards_than_the_machine_has_are_refused_with_their_number() -> None:
    one = seen(FakeNvml(FakeCard("GPU-a"), FakeCard("GPU-b", mig=1)))
    one.check(0)
    one.check(1)
    with pytest.raises(BadRequest, match="gpu = 2, but this machine has 1 GPU to hand out\ndeploy with fewer"):
        one.check(2)
    none = seen(FakeNvml(fault=FakeNvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(BadRequest, match="this machine has 0 GPUs to hand out\nNVIDIA's driver is not loaded"):
        none.check(1)


def test_the_list_is_printed_for_others() -> None:
    done = subprocess.run([sys.executable, "-m", "router.launch.cards"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert bool(told["cards"]) != bool(told["why"])
