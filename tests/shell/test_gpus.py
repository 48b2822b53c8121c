"""Cards through the shell: a start is told its own, and waits until they are measured to be free."""

from __future__ import annotations

from router.core.events import Measured
from router.launch.cards import Cards
from tests.shell.fakes.nvml import GIB, FakeCard, FakeNvml
from tests.shell.fakes.stage import Stage, idle, play


def test_a_start_is_told_its_cards_and_waits_until_the_memory_that_was_freed_is_free() -> None:
    card = FakeCard("GPU-a", used=GIB)
    cards = Cards(FakeNvml(card))
    cards.look()

    async def scenario(stage: Stage) -> None:
        def look() -> None:
            stage.engine.tell(Measured({}, 0, cards.measure()))

        stage.deployed("one", gpu=1, launcher="container")
        stage.deployed("two", gpu=1, launcher="container")
        first = await stage.awake("one")
        assert stage.launcher.alive[first].plan.cards == ("GPU-a",)
        card.used, card.running = 9 * GIB, {7: 8 * GIB}
        look()
        assert stage.engine.schedule.replicas[first].gpu_memory == 8 * GIB

        call = stage.want("two")
        await idle()
        assert stage.launcher.alive == {}, "it gives its card up"
        card.running = {}
        for _ in range(5):
            look()
            await idle()
        assert call.waits
        card.used = GIB
        look()
        second = (await call.answer()).replica
        assert stage.launcher.alive[second].plan.cards == ("GPU-a",)
        call.settle()

    play(scenario, cards.measure())
