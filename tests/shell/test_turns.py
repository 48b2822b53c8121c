"""Starts of containers in turn."""

from __future__ import annotations

import asyncio

from router.launch.container.turns import Turns


def test_as_many_begin_as_there_may_be_and_the_next_when_one_has_ended() -> None:
    async def scenario() -> None:
        turns, running, most = Turns(2), 0, 0
        ends = [asyncio.Event() for _ in range(5)]
        began: list[int] = []

        async def start(number: int) -> None:
            nonlocal running, most
            async with turns.turn():
                began.append(number)
                running += 1
                most = max(most, running)
                await ends[number].wait()
                running -= 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(start(number))
            for number in range(5):
                while number not in began:  # noqa: ASYNC110 - begun by the loop itself
                    await asyncio.sleep(0)
                ends[number].set()
        assert (began, most) == ([0, 1, 2, 3, 4], 2)

    asyncio.run(scenario())


def test_one_that_hangs_keeps_the_next_waiting_for_its_turn_only() -> None:
    async def scenario() -> None:
        turns, hangs = Turns(1, at_most=0.01), asyncio.Event()

        async def hang() -> None:
            async with turns.turn():
                await hangs.wait()

        first = asyncio.create_task(hang())
        await asyncio.sleep(0)
        for _ in range(2):
            async with asyncio.timeout(10), turns.turn():
                assert not first.done()
        hangs.set()
        await first
        async with asyncio.timeout(10), turns.turn():  # its turn was given back once, not twice
            assert turns._free.locked()

    asyncio.run(scenario())


def test_a_start_that_fails_gives_its_turn_back() -> None:
    async def scenario() -> None:
        turns = Turns(1)
        for _ in range(3):
            try:
                async with asyncio.timeout(10), turns.turn():
                    raise ValueError
            except ValueError:
                pass

    asyncio.run(scenario())
