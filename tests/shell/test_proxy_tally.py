"""What the proxy counts: every call once, by what became of it, and nothing that names no endpoint by its name."""

from __future__ import annotations

import asyncio

import pytest

from router.proxy.limits import Limits
from router.proxy.tally import ANSWER, LEFT, Histogram
from tests.shell.fakes.wire import Line, Stage, play, stage, until
from torpor.errors import QueueFull

GET = b"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"


def counted(on: Stage) -> dict[int, int]:
    return dict(on.proxy.tallies.of("e").codes)


def test_a_histogram_counts_a_bound_in_its_own_bucket_and_the_largest_in_the_last() -> None:
    seconds = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.2, 1.0, 7.0):
        seconds.add(value)
    assert (seconds.counts, seconds.count) == ([2, 2, 1], 5)
    assert seconds.total == pytest.approx(8.35)


def test_an_answered_call_is_counted_by_its_status_with_its_times() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            for status in (b"200 OK", b"404 No", b"500 Oh"):
                await line.message()
                await line.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

        async with stage(script) as on:
            line = await on.caller()
            for _ in range(3):
                await line.send(GET)
                await line.message()
            tally = on.proxy.tallies.of("e")
            assert counted(on) == {200: 1, 404: 1, 500: 1}
            assert (tally.warm.count, tally.cold.count, tally.parked.count) == (3, 0, 0)
            assert on.proxy.tallies.router.count == 3
            assert 0 < on.proxy.tallies.router.total < tally.warm.total

    play(scenario)


def test_a_cold_call_is_counted_apart_and_its_waiting_is_not_the_routers() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.cold, on.calls.parked = True, 7.0
            assert (await on.ask(GET)).status == 200
            tally = on.proxy.tallies.of("e")
            assert (tally.warm.count, tally.cold.count) == (0, 1)
            assert tally.parked.counts[ANSWER.index(10.0)] == 1
            assert on.proxy.tallies.router.total < 0  # of a wait that was only claimed

    play(scenario)


def test_a_refused_call_is_counted_by_its_status_and_not_as_an_answer() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.refusal = QueueFull("full\nlater")
            assert (await on.ask(GET)).status == 429
            assert counted(on) == {429: 1}
            assert on.proxy.tallies.of("e").warm.count == 0

    play(scenario)


def test_what_names_no_endpoint_is_counted_without_a_name() -> None:
    async def scenario() -> None:
        async with stage() as on:
            for number in range(3):
                assert (await on.ask(b"GET /endpoints/none-%d/x HTTP/1.1\r\nHost: t\r\n\r\n" % number)).status == 404
            assert (await on.ask(b"nonsense\r\n\r\n")).status == 400
            assert (await on.ask(b"GET /torpor HTTP/1.1\r\nHost: t\r\n\r\n")).status == 200
            assert on.proxy.tallies.unmatched == {404: 3, 400: 1}
            assert on.proxy.tallies.endpoints == {}

    play(scenario)


@pytest.mark.parametrize("phase", ["parked", "forwarded"])
def test_a_caller_who_leaves_before_the_answer_is_counted_once(phase: str) -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.head()
            await line.reader.read()

        async with stage(script) as on:
            if phase == "parked":
                on.calls.hold()
            line = await on.caller()
            await line.send(GET)
            await until(lambda: bool(on.calls.waiting if phase == "parked" else on.upstream.lines))
            line.abort()
            await until(lambda: counted(on) == {LEFT: 1})

    play(scenario)


def test_an_answer_that_breaks_off_is_counted_by_its_status_and_as_broken() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.head()
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

        async with stage(script) as on:
            line = await on.caller()
            await line.send(GET)
            assert (await line.head()).status == 200
            await line.reader.read()
            assert (counted(on), on.proxy.tallies.of("e").broken) == ({200: 1}, 1)

    play(scenario)


def test_an_answer_that_does_not_come_is_counted_as_504() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.head()
            await line.reader.read()

        async with stage(script, Limits(answer_within=0.05)) as on:
            assert (await on.ask(GET)).status == 504
            assert counted(on) == {504: 1}

    play(scenario)


def test_a_stream_is_counted_once_when_it_begins() -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def script(line: Line) -> None:
            await line.head()
            await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await go_on.wait()
            await line.send(b"1\r\nb\r\n0\r\n\r\n")

        async with stage(script) as on:
            line = await on.caller()
            await line.send(GET)
            await line.head()
            assert counted(on) == {200: 1}
            go_on.set()
            assert [await line.chunk() for _ in range(3)] == [b"a", b"b", b""]
            assert counted(on) == {200: 1}

    play(scenario)
