"""What a caller is told when a call fails, and what a replica that breaks HTTP's rules costs."""

from __future__ import annotations

import asyncio
import errno
import json
import os

import pytest

from router.proxy.calls import Outcome
from router.proxy.exchange import Exchange
from router.proxy.pool import Pool
from tests.shell.fakes.wire import Line, play, stage, until
from tests.shell.test_proxy_forward import GET, ask, saying
from torpor.errors import StartFailed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            b"/endpoints/e/v1/models",
            {"error": {"message": "no\nfix", "type": "api_error", "param": None, "code": "start_failed"}},
        ),
        (b"/endpoints/e/v2/models", {"error": "no\nfix"}),
        (b"/endpoints/e/x", {"error": "no\nfix", "code": "start_failed", "retryable": True, "detail": {"log": ["l"]}}),
    ],
)
def test_an_error_speaks_the_protocol_of_its_path(path: bytes, expected: object) -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.refusal = StartFailed("no\nfix", retry_after=1.2, detail={"log": ["l"]})
            line = await on.caller()
            for _ in range(2):  # the connection stays usable
                await line.send(b"POST " + path + b" HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab")
                answer = await line.message()
                assert (answer.status, answer.headers["retry-after"]) == (503, "2")
                assert json.loads(answer.body) == expected

    play(scenario)


def test_an_unknown_endpoint_is_404_in_the_shape_of_what_was_asked() -> None:
    answer = ask(None, b"GET /endpoints/nobody/v1/models HTTP/1.1\r\nHost: t\r\nX-Request-Id: r\r\n\r\n")
    assert (answer.status, answer.headers["x-request-id"]) == (404, "r")
    assert json.loads(answer.body)["error"]["code"] == "endpoint_not_found"


def test_a_refused_head_request_gets_no_body() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            await line.send(b"HEAD /endpoints/nobody HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (await line.message(bodiless=True)).status == 404
            await line.send(GET + b"\r\n")
            assert (await line.message()).status == 200

    play(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 999 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer-Timing: a\x00\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_502(answer: bytes) -> None:
    got = ask(saying(answer), GET + b"\r\n")
    assert got.status == 502
    assert json.loads(got.body)["code"] == "bad_answer"


def test_an_answer_cut_short_is_cut_short_for_the_caller() -> None:
    async def scenario() -> None:
        async with stage(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close=True)) as on:
            line = await on.caller()
            await line.send(GET + b"\r\n")
            await line.head()
            assert await line.reader.read(3) == b"abc"
            assert await line.ended()

    play(scenario)


def test_bytes_past_the_end_of_an_answer_reach_nobody() -> None:
    async def scenario() -> None:
        script = saying(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        )
        async with stage(script) as on:
            line = await on.caller()
            for _ in range(3):
                await line.send(GET + b"\r\n")
                assert (await line.message()).body == b"ok"
            assert len(on.upstream.lines) == 3

    play(scenario)


def test_an_answer_that_nobody_asked_for_ends_its_connection() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            await line.send(GET + b"\r\n")
            await line.message()
            await on.upstream.lines[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            await until(on.upstream.lines[0].reader.at_eof)
            await line.send(GET + b"\r\n")
            assert (await line.message()).body == b""

    play(scenario)


def test_a_shortage_of_the_routers_own_is_503_and_does_not_condemn_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    async def short(self: Pool, address: str, exchange: Exchange) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def scenario() -> None:
        async with stage() as on:
            with monkeypatch.context() as patched:
                patched.setattr(Pool, "_open", short)
                answer = await on.ask(GET + b"\r\n")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert json.loads(answer.body)["code"] == "overloaded"
            assert (on.calls.settled, on.calls.replayed) == ([Outcome.FAILED], 0)
            assert (await on.ask(GET + b"\r\n")).status == 200

    play(scenario)


def test_a_call_ends_with_its_replica_though_a_child_of_that_holds_the_connection_open() -> None:
    async def silent(line: Line) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with stage(silent) as on:
            line = await on.caller()
            await line.send(b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab")
            await until(lambda: on.calls.held == 1)
            await asyncio.sleep(0.05)
            on.proxy.pool.gone(on.calls.address)
            answer = await line.message()
            assert (answer.status, json.loads(answer.body)["code"]) == (502, "replica_died")

    play(scenario)


def test_a_read_that_wakes_nobody_goes_to_the_control_plane_under_its_path() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.known = b"/torpor/v1/known/e/healthz"
            assert (await on.ask(GET + b"\r\n")).status == 200
            assert on.control.requests[-1].start == b"GET /torpor/v1/known/e/healthz HTTP/1.1"
            assert on.calls.wanted == []

    play(scenario)
