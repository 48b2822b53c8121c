"""A replica that goes away: its call is sent again only where it cannot have been acted on."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from router.proxy.calls import Outcome
from tests.shell.fakes.wire import Line, Script, play, stage, until
from tests.shell.test_proxy_lease import GET, OK, POST


def leaving(times: int) -> Script:
    """A replica that reads a request and closes, `times` times, and answers the others."""
    broken: list[int] = []

    async def script(line: Line) -> None:
        if len(broken) < times:
            broken.append(1)
            await line.message()
            return
        while True:
            await line.message()
            await line.send(OK)

    return script


@pytest.mark.parametrize(
    ("method", "times", "status", "replays"),
    [
        (b"POST", 1, 502, 0),
        (b"PATCH", 1, 502, 0),
        (b"GET", 1, 200, 1),
        (b"PUT", 2, 200, 2),
        (b"DELETE", 3, 502, 2),
    ],
)
def test_a_call_that_may_have_been_acted_on_is_replayed_only_when_idempotent(
    method: bytes, times: int, status: int, replays: int
) -> None:
    async def scenario() -> None:
        async with stage(leaving(times)) as on:
            line = await on.caller()
            await line.send(POST.replace(b"POST", method))
            answer = await line.message()
            assert answer.status == status
            assert on.calls.replayed == replays
            died = [Outcome.DIED] * times
            assert on.calls.settled == (died if status == 502 else [*died, Outcome.DONE])
            if status == 502:
                assert json.loads(answer.body)["code"] == "replica_died"

    play(scenario)


def test_a_call_that_a_replica_never_accepted_is_replayed() -> None:
    async def scenario() -> None:
        async with stage() as on:
            path = on.calls.address
            on.calls.address = path + ".dying"
            with socket.socket(socket.AF_UNIX) as dying:
                dying.bind(on.calls.address)
                dying.listen(8)
                line = await on.caller()
                await line.send(POST)
                await until(lambda: on.calls.held == 1)
                await asyncio.sleep(0.02)
                on.calls.address = path
            assert (await line.message()).body == b"abc"
            assert on.calls.replayed == 1
            assert on.calls.settled == [Outcome.DIED, Outcome.DONE]

    play(scenario)


def test_a_call_that_no_replica_listens_for_is_replayed_twice_and_then_502() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.address = str(Path(on.calls.address).with_name("nobody.sock"))
            answer = await on.ask(POST)
            assert answer.status == 502
            assert on.calls.replayed == 2
            assert on.calls.settled == [Outcome.DIED] * 3

    play(scenario)


def test_trap_17_a_kept_connection_whose_replica_closes_it_unread_costs_no_call() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.message()
            await line.send(OK)
            if len(on.upstream.lines) > 1:
                await line.message()
                await line.send(OK)
                return
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: len(on.calls.granted) == 2)
            await asyncio.sleep(0.01)
            line.abort()

        async with stage(script) as on:
            line = await on.caller()
            for _ in range(2):
                await line.send(POST)
                assert (await line.message()).body == b"ok"
            assert on.calls.settled == [Outcome.DONE, Outcome.DIED, Outcome.DONE]

    play(scenario)


def test_a_large_request_is_not_replayed_once_a_part_of_it_may_have_been_read() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.head()
            await line.reader.readexactly(100_000)
            line.abort()

        async with stage(script) as on:
            line = await on.caller()
            line.writer.write(b"PUT /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000\r\n\r\n")
            line.writer.write(b"x" * 5_000_000)
            assert (await line.message()).status == 502
            assert on.calls.replayed == 0
            assert on.calls.settled == [Outcome.DIED]

    play(scenario)


def test_a_post_of_which_the_head_was_read_is_not_replayed_when_its_body_was_not() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.head()
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            seen.set()
            await gone.wait()
            line.abort()

        seen, gone = asyncio.Event(), asyncio.Event()
        async with stage(script) as on:
            line = await on.caller()
            await line.send(POST[:-3])
            await seen.wait()
            await line.send(b"abc")
            await asyncio.sleep(0.02)
            gone.set()
            assert (await line.message()).status == 502
            assert on.calls.replayed == 0

    play(scenario)


def test_a_caller_who_leaves_while_its_call_waits_to_be_replayed_leaves_the_queue() -> None:
    async def scenario() -> None:
        die = asyncio.Event()

        async def script(line: Line) -> None:
            await line.message()
            await die.wait()

        async with stage(script) as on:
            line = await on.caller()
            await line.send(GET)
            await until(lambda: on.calls.held == 1)
            on.calls.hold()
            die.set()
            await until(lambda: bool(on.calls.waiting))
            await line.close()
            await until(lambda: bool(on.calls.left))
            assert on.calls.settled == [Outcome.DIED]

    play(scenario)
