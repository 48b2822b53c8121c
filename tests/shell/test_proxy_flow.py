"""Bodies of any size and tunnels pass through with back-pressure and flat memory."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from router.proxy.calls import Outcome
from router.proxy.limits import Limits
from tests.shell.fakes.wire import Line, play, stage, until

MIB = 1 << 20
FLAT = 4 * MIB  # of Python memory, for any body: socket buffers and read sizes of both sides
UPGRADE = (
    b"GET /endpoints/e/ws HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: k\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
)


async def peak_of(work: asyncio.Task[None]) -> int:
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_held_back_while_the_replica_does_not_read(chunked: bool) -> None:
    pieces, piece = 64, b"x" * MIB

    async def scenario() -> None:
        got: list[int] = []
        stall = asyncio.Event()

        async def script(line: Line) -> None:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await stall.wait()
            line.writer.transport.resume_reading()  # type: ignore[attr-defined]
            head = await line.head()
            if head.headers.get("transfer-encoding") == "chunked":
                while payload := await line.chunk():
                    got.append(len(payload))
                await line.reader.readexactly(2)
            else:
                while sum(got) < pieces * MIB:
                    got.append(len(await line.reader.read(MIB)))
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await line.reader.read()

        async def upload(line: Line, sent: list[int]) -> None:
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (pieces * MIB)
            await line.send(b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\n" + framing + b"\r\n\r\n")
            for _ in range(pieces):
                await line.send(b"%x\r\n%b\r\n" % (MIB, piece) if chunked else piece)
                sent.append(MIB)
            if chunked:
                await line.send(b"0\r\n\r\n")
            assert (await line.message()).status == 200

        async with stage(script) as on:
            line = await on.caller()
            sent: list[int] = []
            work = asyncio.ensure_future(upload(line, sent))
            before = -1
            while before != len(sent):
                before = len(sent)
                await asyncio.sleep(0.1)
            assert len(sent) < 32  # what the sockets on the way hold, and no more
            stall.set()
            assert await peak_of(work) < FLAT + 3 * MIB  # a piece is also held by the caller and by the replica
            assert sum(got) == pieces * MIB

    play(scenario)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_large_answer_is_held_back_while_the_caller_does_not_read(framing: str) -> None:
    pieces, piece = 64, b"x" * MIB

    async def scenario() -> None:
        sent: list[int] = []

        async def script(line: Line) -> None:
            await line.message()
            stated = {
                "length": b"Content-Length: %d\r\n" % (pieces * MIB),
                "chunked": b"Transfer-Encoding: chunked\r\n",
            }
            await line.send(b"HTTP/1.1 200 OK\r\n" + stated.get(framing, b"") + b"\r\n")
            for _ in range(pieces):
                await line.send(b"%x\r\n%b\r\n" % (MIB, piece) if framing == "chunked" else piece)
                sent.append(MIB)
            if framing == "chunked":
                await line.send(b"0\r\n\r\n")

        async def download(line: Line) -> None:
            head = await line.head()
            got = 0
            if head.headers.get("transfer-encoding") == "chunked":
                while payload := await line.chunk():
                    got += len(payload)
            else:
                while got < pieces * MIB:
                    got += len(await line.reader.read(MIB))
            assert got == pieces * MIB

        async with stage(script) as on:
            line = await on.caller()
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await line.send(b"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n")
            await until(lambda: bool(sent))
            before = -1
            while before != len(sent):
                before = len(sent)
                await asyncio.sleep(0.1)
            assert len(sent) < 32
            line.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert await peak_of(asyncio.ensure_future(download(line))) < FLAT + 3 * MIB
            await until(lambda: on.calls.held == 0)

    play(scenario)


def test_a_caller_who_takes_nothing_of_its_answer_is_dropped() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.message()
            line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000)
            await line.reader.read()

        async with stage(script, Limits(send_within=0.1, linger=0.1)) as on:
            line = await on.caller()
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await line.send(b"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n")
            await until(lambda: on.calls.settled == [Outcome.CALLER_LEFT])

    play(scenario)


def test_pipelined_requests_are_not_read_without_end() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.hold()
            line = await on.caller()
            for _ in range(20):
                line.writer.write(b"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n" * 20_000)
            await until(lambda: bool(on.calls.waiting))
            await asyncio.sleep(0.1)
            assert line.writer.transport.get_write_buffer_size() > 0
            assert len(on.calls.wanted) == 1
            line.abort()
            await until(lambda: bool(on.calls.left))

    play(scenario)


def test_a_large_body_waits_at_the_caller_while_its_call_is_parked() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.hold()
            line = await on.caller()
            body = b"x" * (20 * MIB)
            line.writer.write(b"PUT /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body))
            line.writer.write(body)
            await until(lambda: bool(on.calls.waiting))
            await asyncio.sleep(0.1)
            assert line.writer.transport.get_write_buffer_size() > 10 * MIB
            on.calls.release()
            assert (await line.message()).body == body

    play(scenario)


def test_a_replica_that_answers_before_the_body_has_come_ends_the_connection() -> None:
    async def scenario() -> None:
        async def script(line: Line) -> None:
            await line.head()
            await line.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
            await line.reader.read()

        async with stage(script) as on:
            line = await on.caller()
            await line.send(b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: 50\r\n\r\nabc")
            answer = await line.message()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await line.ended()
            assert on.calls.settled == [Outcome.DONE]

    play(scenario)


async def parrot(line: Line) -> None:
    await line.message()
    await line.send(SWITCH + b"hello ")
    while data := await line.reader.read(65536):
        await line.send(data)
    await line.send(b" bye")


def test_an_upgrade_is_tunnelled_and_holds_its_lease_while_open() -> None:
    async def scenario() -> None:
        async with stage(parrot) as on:
            line = await on.caller()
            await line.send(UPGRADE)
            head = await line.head()
            assert head.status == 101
            assert head.headers["upgrade"] == "websocket"
            assert head.headers["connection"] == "Upgrade"
            assert head.headers["sec-websocket-accept"] == "a"
            assert await line.reader.readexactly(6) == b"hello "
            await line.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await line.reader.readexactly(18) == b"GET / HTTP/1.1\r\n\r\n"
            assert on.calls.held == 1
            line.writer.write_eof()
            assert await line.reader.read() == b" bye"
            await until(lambda: on.calls.settled == [Outcome.DONE])

    play(scenario)


def test_a_tunnel_holds_back_both_ways() -> None:
    async def scenario() -> None:
        async with stage(parrot) as on:
            line = await on.caller()
            await line.send(UPGRADE)
            await line.head()
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            line.writer.write(b"x" * (40 * MIB))
            size = -1
            while size != line.writer.transport.get_write_buffer_size():
                size = line.writer.transport.get_write_buffer_size()
                await asyncio.sleep(0.1)
            assert size > 0
            line.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await line.reader.readexactly(6 + 40 * MIB)

    play(scenario)


@pytest.mark.parametrize("who", ["caller", "replica"])
def test_a_broken_tunnel_is_broken_on_the_other_side(who: str) -> None:
    async def scenario() -> None:
        async with stage(parrot) as on:
            line = await on.caller()
            await line.send(UPGRADE)
            await line.head()
            await line.reader.readexactly(6)
            if who == "caller":
                line.abort()
            else:
                on.upstream.lines[0].abort()
                assert await line.ended()
            await until(lambda: on.calls.held == 0)

    play(scenario)


def test_a_refused_upgrade_is_an_answer_like_others() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            for _ in range(2):
                await line.send(UPGRADE)
                assert (await line.message()).status == 200
            assert on.upstream.requests[0].headers["connection"] == "Upgrade"
            assert on.upstream.requests[0].headers["sec-websocket-key"] == "k"

    play(scenario)
