"""Work that several wait for is done once, is heard by all, and is stopped by the last who leaves."""

from __future__ import annotations

import asyncio

import pytest

from router.launch.container.flights import Flights, Tell
from torpor.errors import InvalidService


class Work:
    """Says `began`, waits for the gate, says `ended`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.begun = 0
        self.cancelled = 0
        self._error = error

    async def __call__(self, tell: Tell) -> str:
        self.begun += 1
        self.began.set()
        tell("began")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        tell("ended")
        if self._error is not None:
            raise self._error
        return "made"


def test_work_is_done_once_for_all_who_ask_and_all_hear_all_of_it() -> None:
    async def play() -> None:
        flights, work, first, second = Flights(), Work(), list[str](), list[str]()
        one = asyncio.ensure_future(flights.join("it", work, first.append))
        await work.began.wait()
        two = asyncio.ensure_future(flights.join("it", work, second.append))
        await asyncio.sleep(0)
        work.gate.set()
        assert list(await asyncio.gather(one, two)) == ["made", "made"]
        assert (work.begun, first, second) == (1, ["began", "ended"], ["began", "ended"])

    asyncio.run(play())


def test_a_caller_who_leaves_does_not_stop_it_for_the_others() -> None:
    async def play() -> None:
        flights, work, heard = Flights(), Work(), list[str]()
        one = asyncio.ensure_future(flights.join("it", work, heard.append))
        await work.began.wait()
        two = asyncio.ensure_future(flights.join("it", work, lambda line: None))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        work.gate.set()
        assert await two == "made"
        assert (work.begun, work.cancelled, heard) == (1, 0, ["began"])

    asyncio.run(play())


def test_the_last_caller_who_leaves_stops_it_and_waits_for_its_end() -> None:
    async def play() -> None:
        flights, work = Flights(), Work()
        one = asyncio.ensure_future(flights.join("it", work, lambda line: None))
        await work.began.wait()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert work.cancelled == 1
        again = Work()
        again.gate.set()
        assert await flights.join("it", again, lambda line: None) == "made"

    asyncio.run(play())


def test_what_it_raises_is_raised_to_all_and_it_is_tried_again() -> None:
    async def play() -> None:
        flights, work = Flights(), Work(InvalidService("no"))
        both = [asyncio.ensure_future(flights.join("it", work, lambda line: None)) for _ in range(2)]
        await work.began.wait()
        work.gate.set()
        told = await asyncio.gather(*both, return_exceptions=True)
        assert [type(each) for each in told] == [InvalidService, InvalidService]
        again = Work()
        again.gate.set()
        assert await flights.join("it", again, lambda line: None) == "made"

    asyncio.run(play())


def test_work_on_two_things_goes_on_side_by_side() -> None:
    async def play() -> None:
        flights, one, two = Flights(), Work(), Work()
        both = [asyncio.ensure_future(flights.join(name, w, lambda line: None)) for name, w in (("1", one), ("2", two))]
        await one.began.wait()
        await two.began.wait()
        one.gate.set()
        two.gate.set()
        assert list(await asyncio.gather(*both)) == ["made", "made"]

    asyncio.run(play())
