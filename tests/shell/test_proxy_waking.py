"""Callers of event streams are told that they are not forgotten while their call is parked."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.proxy.limits import Limits
from tests.shell.fakes.wire import Line, play, stage
from torpor.errors import StartFailed

ASK = b"GET /endpoints/e/stream HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\nX-Request-Id: r1\r\n\r\n"
SOON = Limits(waking_every=0.05, linger=0.1)
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"

ANSWERS = [
    EVENTS + b"Content-Length: 11\r\n\r\ndata: one\n\n",
    EVENTS + b"Content-Length: 0\r\n\r\n",
    EVENTS + b"Transfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n6\r\n one\n\n\r\n0\r\n\r\n",
    EVENTS + b"\r\ndata: one\n\n",
]


def saying(answer: bytes) -> object:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(answer)
        if b"Content-Length" not in answer and b"chunked" not in answer:
            await line.close()

    return script


@pytest.mark.parametrize("answer", ANSWERS, ids=["measured", "empty", "chunked", "until close"])
def test_a_parked_stream_gets_comments_and_then_the_replicas_events(answer: bytes) -> None:
    async def scenario() -> None:
        async with stage(saying(answer), SOON) as on:  # type: ignore[arg-type]  # a script
            on.calls.hold()
            line = await on.caller()
            await line.send(ASK)
            head = await line.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            assert b"X-Request-Id: r1\r\n" in head
            for _ in range(2):
                assert await line.reader.readuntil(b"\n\n\r\n") == b"a\r\n: waking\n\n\r\n"
            on.calls.release()
            rest = await line.reader.readuntil(b"0\r\n\r\n")
            payload = b"".join(part for part in rest.split(b"\r\n")[1::2])
            events = b"" if b"Content-Length: 0" in answer else b"data: one\n\n"
            assert payload.replace(b": waking\n\n", b"") == events
            on.calls.known = b"/"
            await line.send(b"GET /next HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (await line.message()).status == 200, "the connection goes on"

    play(scenario)


def test_a_start_that_fails_ends_the_stream_with_the_error_as_an_event() -> None:
    async def scenario() -> None:
        async with stage(None, SOON) as on:
            on.calls.hold()
            line = await on.caller()
            await line.send(ASK)
            await line.reader.readuntil(b"waking")
            [call] = on.calls.waiting
            on.calls.waiting.clear()
            call.refused(StartFailed("it cannot start\nmend it"))
            rest = await line.reader.readuntil(b"0\r\n\r\n")
            data = rest.partition(b"event: error\ndata: ")[2].partition(b"\n")[0]
            assert json.loads(data)["code"] == "start_failed"

    play(scenario)


def test_an_answer_that_is_no_stream_ends_it_with_an_error() -> None:
    async def scenario() -> None:
        async with stage(saying(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"), SOON) as on:  # type: ignore[arg-type]
            on.calls.hold()
            line = await on.caller()
            await line.send(ASK)
            await line.reader.readuntil(b"waking")
            on.calls.release()
            rest = await line.reader.readuntil(b"0\r\n\r\n")
            assert b"the endpoint answered 404" in rest

    play(scenario)


@pytest.mark.parametrize("accept", [b"application/json", b"*/*"])
def test_others_wait_in_silence_for_the_answer_itself(accept: bytes) -> None:
    async def scenario() -> None:
        async with stage(None, SOON) as on:
            on.calls.hold()
            line = await on.caller()
            await line.send(ASK.replace(b"text/event-stream", accept))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(line.reader.read(1), 0.3)
            on.calls.release()
            assert (await line.message()).status == 200

    play(scenario)
