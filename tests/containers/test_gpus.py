"""Endpoints that share a card: a real engine and its CDI, real containers, the cards played by a fake NVML.

What is handed over are other devices under the cards' names: no machine with a card was at hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop

from router.core.catalog import Catalog
from router.core.effects import Note
from router.core.settings import Settings
from router.launch.cards import Cards
from router.launch.machine import memory
from router.shell.engine import Engine
from router.shell.gauge import Gauge
from router.shell.plan import Plan
from tests.containers.devices import CARDS
from tests.containers.stage import ContainerStage
from tests.shell.fakes.nvml import GIB, FakeCard, FakeNvml

PATIENCE = 120.0  # seconds until a scenario that hangs is a failure
TAKEN = 4 * GIB  # by a replica


class Bench:
    """An engine over containers, on a machine with the cards that are specified."""

    def __init__(self, stage: ContainerStage) -> None:
        self.stage = stage
        self.nvml = FakeNvml(*(FakeCard(name) for name in CARDS))
        self.notes: list[Note] = []
        cards = Cards(self.nvml)
        cards.look()
        serial = iter(range(1000))
        self.engine = Engine(
            Catalog(),
            stage.launcher,
            lambda endpoint, revision: f"{endpoint}-{revision}-{next(serial)}",
            time.monotonic,
            self.notes.append,
            self.plan,
            cards=cards.measure(),
        )
        self.gauge = Gauge(self.engine, stage.launcher, memory, cards.measure)

    async def plan(self, endpoint: str, revision: int) -> Plan:
        return replace(self.stage.plan("Good", learn=False), endpoint=endpoint, revision=revision)

    def live(self, name: str, gpu: int, **settings: Any) -> None:
        self.engine.live(name, 1, Settings(gpu=gpu, launcher="container", **settings))

    def replica(self, name: str) -> str:
        [replica] = [r.id for r in self.engine.schedule.lines[name].replicas.values() if r.state == "ready"]
        return replica

    def seen(self, name: str) -> set[str]:
        """The cards that an endpoint's replica finds among its devices."""
        pid = self.stage.launcher.said(self.replica(name))["pid"]
        return {each.name for each in Path(f"/proc/{pid}/root/dev").iterdir() if each.name in CARDS}

    def card(self, name: str) -> FakeCard:
        [card] = [card for card in self.nvml.cards if card.uuid == name]
        return card


@pytest.fixture
def bench(engine: Path, host_image: str, card_devices: None) -> Callable[..., None]:
    """Runs a scenario beside a running engine and its gauge."""

    async def beside(scenario: Callable[[Bench], Awaitable[None]], stage: ContainerStage) -> None:
        made = Bench(stage)
        tasks = [asyncio.create_task(each()) for each in (made.engine.run, made.gauge.run)]
        try:
            await scenario(made)
            await made.engine.shut_down()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await stage.launcher.close()

    def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        with TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stage = ContainerStage(Path(folder), engine, host_image)
            runner.run(asyncio.wait_for(beside(scenario, stage), PATIENCE))

    return play


def test_replicas_see_their_own_cards_and_no_others(bench: Callable[..., None]) -> None:
    async def scenario(made: Bench) -> None:
        made.live("one", 1)
        made.live("two", 1)
        made.live("cpu", 0)
        for name in ("one", "two", "cpu"):
            await made.engine.wake(name)
        one, two, cpu = (made.seen(name) for name in ("one", "two", "cpu"))
        assert (len(one), len(two), one | two, cpu) == (1, 1, set(CARDS), set())

    bench(scenario)


def test_a_card_goes_from_one_endpoint_to_another_when_its_memory_is_free(bench: Callable[..., None]) -> None:
    async def scenario(made: Bench) -> None:
        made.live("pair", 2)
        made.live("one", 1)
        await made.engine.wake("pair")
        assert made.seen("pair") == set(CARDS)
        first = made.replica("pair")
        pid = made.stage.launcher.said(first)["pid"]
        for card in made.nvml.cards:
            card.used, card.running = TAKEN, {pid: TAKEN}
        await made.gauge.look()
        assert made.engine.schedule.replicas[first].gpu_memory == 2 * TAKEN

        waking = asyncio.create_task(made.engine.wake("one"))
        while made.stage.launcher.has(first):  # noqa: ASYNC110 - of an end a plain callback tells
            await asyncio.sleep(0.01)
        for card in made.nvml.cards:
            card.running = {}  # the process is gone, and the driver still has its memory
        for _ in range(3):
            await made.gauge.look()
        assert not waking.done()
        assert len(made.engine.schedule.lines["one"].replicas) == 0

        made.card("GPU-b").used = 0
        await waking
        assert made.seen("one") == {"GPU-b"}
        made.card("GPU-a").used = 0

    bench(scenario)
