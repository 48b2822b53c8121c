"""Traps that others fell into, on a real platform: see docs/traps.md."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx

from tests.system.faults.watching import ENDPOINTS, PATIENCE, Victims, nothing_is_left, until
from torpor.chaos.look import alive

ROOT = Path(__file__).parents[3]
TRAPS = (*range(1, 8), 9, 10, *range(12, 18), 20, 22, 23, 25)


def test_trap_2_a_sleeping_endpoint_is_listed_with_its_state(victims: Victims) -> None:
    victims.sleep("deep")
    assert {view["name"]: view["state"] for view in victims.views()}["deep"] == "asleep"
    nothing_is_left(victims)


def test_trap_4_a_call_waits_until_the_service_itself_says_that_it_is_ready(victims: Victims) -> None:
    victims.sleep("deep")
    victims.mode.write_text("unready")
    waiting = victims.calling("deep", "hello", name="a")
    victims.replica("deep", "starting")
    assert not waiting.done()
    victims.mode.unlink()
    assert waiting.result(PATIENCE).text == "hello a"
    nothing_is_left(victims)


def test_trap_13_the_first_call_at_zero_is_answered_each_time(victims: Victims) -> None:
    for endpoint in [*ENDPOINTS] * 3:
        victims.sleep(endpoint)
        answer = victims.call(endpoint, "hello", name="a")
        assert (answer.status_code, answer.headers["x-torpor-cold-start"]) == (200, "true")
    nothing_is_left(victims)


def test_trap_14_a_stream_comes_piece_by_piece_through_a_cold_start(victims: Victims) -> None:
    victims.sleep("deep")
    url = f"{victims.url}/endpoints/deep/count"
    with httpx.stream("POST", url, json={"upto": 4, "pause": 0.3}, timeout=PATIENCE) as answer:
        came = [(line, time.monotonic()) for line in answer.iter_lines()]
    assert [line for line, _ in came] == ["0", "1", "2", "3"]
    assert came[-1][1] - came[0][1] > 0.3  # 0.9 s of pauses: none was kept back to the end
    nothing_is_left(victims)


def test_trap_20_sleep_gives_the_memory_back_by_ending_the_process(victims: Victims) -> None:
    victims.call("deep", "leak", mib=32)
    pid = victims.replica("deep")
    victims.sleep("deep")
    until(lambda: not alive(pid))
    nothing_is_left(victims)


def test_every_trap_of_the_page_has_its_tests() -> None:
    rows = re.findall(r"^\| (\d+) \|.*$", (ROOT / "docs" / "traps.md").read_text(), re.MULTILINE)
    assert [int(number) for number in rows] == list(TRAPS)
    tests = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for row in (ROOT / "docs" / "traps.md").read_text().splitlines():
        if (number := re.match(r"\| (\d+) \|", row)) is None:
            continue
        named = re.findall(r"`(test_trap_\d+_\w+)`", row)
        assert named, row
        assert set(named) <= tests, set(named) - tests
        assert all(name.startswith(f"test_trap_{number[1]}_") for name in named)
