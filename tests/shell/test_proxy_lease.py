"""A lease is held until the replica has really finished, and settled exactly once, however a call ends."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from router.proxy.calls import Lease, Outcome
from router.proxy.limits import Limits
from tests.shell.fakes.wire import Line, play, stage, until
from torpor.errors import QueueFull

GET = b"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Stubborn:
    """A replica that reads a request, says `first`, notices end of file, and finishes only when it is let."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.heard: list[bytes] = []
        self.told = False  # it saw that the caller has left
        self.finish = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        self.heard.append((await line.head()).start)
        await line.send(self.first)
        await line.reader.read()
        self.told = True
        await self.finish.wait()


@pytest.mark.parametrize(
    ("status", "outcome"), [(b"200 OK", Outcome.DONE), (b"404 No", Outcome.DONE), (b"500 Oh", Outcome.FAILED)]
)
def test_an_answer_settles_its_lease(status: bytes, outcome: Outcome) -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            while True:
                await line.message()
                await line.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

        async with stage(script) as on:
            line = await on.caller()
            for _ in range(3):
                await line.send(POST)
                await line.message()
            assert on.calls.settled == [outcome] * 3
            assert len(on.upstream.lines) == 1

    play(scenario)


# A caller leaves, in every phase.


def test_a_caller_who_leaves_while_parked_leaves_the_queue() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.hold()
            line = await on.caller()
            await line.send(GET)
            await until(lambda: bool(on.calls.waiting))
            await line.close()
            await until(lambda: bool(on.calls.left))
            on.calls.release()
            assert on.calls.granted == []

    play(scenario)


@pytest.mark.parametrize(("size", "reset"), [(100_000, False), (20_000_000, True)])
def test_a_caller_who_leaves_while_parked_with_its_body_unread_leaves_the_queue(size: int, reset: bool) -> None:
    async def scenario() -> None:
        async with stage(limits=Limits(read_ahead=1000, linger=0.1)) as on:
            on.calls.hold()
            line = await on.caller()
            line.writer.write(b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: 50000000\r\n\r\n")
            line.writer.write(b"x" * size)
            await until(lambda: bool(on.calls.waiting))
            if reset:
                line.abort()
            else:
                await line.close()
            await until(lambda: bool(on.calls.left))

    play(scenario)


def test_a_caller_who_leaves_while_connecting_costs_the_replica_nothing() -> None:
    async def scenario() -> None:
        async with stage() as on:
            path = on.calls.address + ".full"
            with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
                full.bind(path)
                full.listen(0)
                first.connect(path)  # the accept queue is full now
                on.calls.address = path
                line = await on.caller()
                await line.send(GET)
                await until(lambda: on.calls.held == 1)
                await line.close()
                await until(lambda: on.calls.held == 0)
                assert on.calls.settled == [Outcome.CALLER_LEFT]

    play(scenario)


@pytest.mark.parametrize(
    ("request_", "first"),
    [
        (POST[:-1], b""),  # sending: a part of the body is still to come
        (POST, b""),  # waiting for the answer
        (POST, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (POST, b"HTTP/1.1 200 OK\r\nContent-Le"),
        (POST, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        (POST, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        (POST, b"HTTP/1.1 200 OK\r\n\r\nabc"),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_a_caller_who_leaves_is_told_to_the_replica_and_the_lease_held_until_it_finishes(
    request_: bytes, first: bytes, reset: bool
) -> None:
    async def scenario() -> None:
        replica = Stubborn(first)
        async with stage(replica) as on:
            line = await on.caller()
            await line.send(request_)
            await until(lambda: bool(replica.heard))
            if b"200 OK\r\nContent-Length:" in first or b"\r\n\r\n" in first:
                await line.head()
            if reset:
                line.abort()
            else:
                await line.close()
            await until(lambda: replica.told)
            assert on.calls.held == 1
            replica.finish.set()
            await until(lambda: on.calls.held == 0)
            assert on.calls.settled == [Outcome.CALLER_LEFT]

    play(scenario)


def test_a_caller_who_leaves_within_a_large_answer_does_not_keep_the_replica_from_finishing() -> None:
    async def scenario() -> None:
        wrote: list[int] = []

        async def script(line: Line) -> None:
            await line.message()
            line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
            for _ in range(50):
                await line.send(b"x" * 1_000_000)
                wrote.append(1)
            await line.reader.read()

        async with stage(script) as on:
            line = await on.caller()
            await line.send(GET)
            await line.head()
            await line.close()
            await until(lambda: on.calls.held == 0)
            assert len(wrote) == 50
            assert on.calls.settled == [Outcome.CALLER_LEFT]

    play(scenario)


def test_a_replica_that_answers_with_a_close_holds_its_lease_until_it_closes() -> None:
    async def scenario() -> None:
        finish = asyncio.Event()

        async def script(line: Line) -> None:
            await line.message()
            await line.send(b"HTTP/1.1 504 Late\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
            await finish.wait()

        async with stage(script) as on:
            line = await on.caller()
            await line.send(POST)
            answer = await line.message()
            assert (answer.status, answer.body) == (504, b"no")
            assert "connection" not in answer.headers  # the caller's connection is another one
            assert on.calls.held == 1
            on.calls.refusal = QueueFull("full\nWait.")
            await line.send(POST)
            assert (await line.message()).status == 429
            assert on.calls.held == 1
            finish.set()
            await until(lambda: on.calls.held == 0)
            assert on.calls.settled == [Outcome.FAILED]

    play(scenario)


def test_trap_16_no_answer_in_time_is_504_and_the_lease_is_held_on() -> None:
    async def scenario() -> None:
        replica = Stubborn()
        async with stage(replica, Limits(answer_within=0.05)) as on:
            answer = await on.ask(POST)
            assert answer.status == 504
            assert json.loads(answer.body)["code"] == "call_timeout"
            await until(lambda: replica.told)
            assert on.calls.held == 1
            replica.finish.set()
            await until(lambda: on.calls.held == 0)
            assert on.calls.settled == [Outcome.FAILED]

    play(scenario)


def test_a_body_that_turns_bad_ends_the_call_and_is_never_completed() -> None:
    async def scenario() -> None:
        replica = Stubborn()
        replica.finish.set()
        async with stage(replica) as on:
            line = await on.caller()
            await line.send(
                b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
            )
            await until(lambda: bool(replica.heard))
            await line.send(b"zzz\r\n" + GET)
            assert (await line.message()).status == 400
            assert await line.ended()
            await until(lambda: on.calls.held == 0)
            assert len(replica.heard) == 1

    play(scenario)


def test_a_grant_for_a_caller_who_is_gone_is_given_back() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.hold()
            line = await on.caller()
            await line.send(GET)
            await until(lambda: bool(on.calls.waiting))
            call = on.calls.waiting[0]
            await line.close()
            await until(lambda: bool(on.calls.left))
            lease = Lease("e-1", on.calls.address, False, 0.0, {})
            on.calls._open.append(lease)
            call.granted(lease)
            assert on.calls.settled == [Outcome.CALLER_LEFT]
            assert on.upstream.lines == []

    play(scenario)


# The proxy closes.


def test_a_close_lets_the_running_call_end_and_its_connection_with_it() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def script(line: Line) -> None:
            await line.message()
            await go.wait()
            await line.send(OK)
            await line.reader.read()

        async with stage(script) as on:
            idle, busy = await on.caller(), await on.caller()
            await busy.send(POST)
            await until(lambda: on.calls.held == 1)
            closing = asyncio.ensure_future(on.proxy.close(10.0))
            assert await idle.ended()
            go.set()
            answer = await busy.message()
            assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
            assert await busy.ended()
            await closing

    play(scenario)


def test_a_close_breaks_off_what_does_not_end() -> None:
    async def scenario() -> None:
        replica = Stubborn()
        async with stage(replica) as on:
            line = await on.caller()
            await line.send(POST)
            await until(lambda: bool(replica.heard))
            await on.proxy.close(0.02)
            assert on.calls.held == 0
            assert await line.ended()
            replica.finish.set()

    play(scenario)
