"""What goes to a replica and what comes back, as HTTP/1.1 wants it."""

from __future__ import annotations

import pytest

from router.proxy.limits import Limits
from tests.shell.fakes.wire import Line, Message, Script, play, stage, until
from torpor.errors import QueueFull

GET = b"GET /endpoints/e/x?y=1 HTTP/1.1\r\nHost: t:1\r\n"
POST = b"POST /endpoints/e/x HTTP/1.1\r\nHost: t:1\r\n"


def saying(answer: bytes, *, close: bool = False) -> Script:
    """A replica that gives every request the same bytes."""

    async def script(line: Line) -> None:
        while True:
            await line.message()
            await line.send(answer)
            if close:
                return

    return script


def ask(script: Script | None, request: bytes, *, bodiless: bool = False) -> Message:
    """The answer to one request on a proxy of its own."""
    answers: list[Message] = []

    async def scenario() -> None:
        async with stage(script) as on:
            answers.append(await on.ask(request, bodiless=bodiless))

    play(scenario)
    return answers[0]


def test_the_replica_sees_its_own_path_the_host_and_the_end_to_end_headers() -> None:
    async def scenario() -> None:
        async with stage() as on:
            sent = (
                b"X-Request-Id: abc-1\r\ntraceparent: 00-1-2-01\r\nAccept: a\r\naccept: b\r\nX-Own: 1\r\n"
                b"Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
                b"Proxy-Authorization: p\r\n"
                b"X-Forwarded-For: 9.9.9.9\r\nX-Torpor-Anything: 1\r\nX-Torpor-Queue-Within: 2.5\r\n"
                b"Upgrade: h2c\r\n\r\n"
            )
            answer = await on.ask(GET + sent)
            seen = on.upstream.requests[0]
            assert seen.start == b"GET /x?y=1 HTTP/1.1"
            assert seen.headers == {
                "host": "t:1",
                "x-request-id": "abc-1",
                "traceparent": "00-1-2-01",
                "accept": "a, b",
                "x-own": "1",
                "x-forwarded-for": "127.0.0.1",
                "x-forwarded-proto": "http",
                "x-forwarded-host": "t:1",
            }
            assert answer.headers["x-request-id"] == "abc-1"
            assert on.calls.wanted[0][1] == 2.5

    play(scenario)


@pytest.mark.parametrize("wish", [b"a b", b"x" * 200, b'"', b""])
def test_a_request_id_that_is_not_sane_is_replaced(wish: bytes) -> None:
    answer = ask(None, GET + b"X-Request-Id: " + wish + b"\r\n\r\n")
    assert answer.headers["x-request-id"] not in (wish.decode(), "")


def test_each_call_gets_a_request_id_of_its_own() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            for _ in range(3):
                await line.send(GET + b"\r\n")
                await line.message()
            assert len({request.headers["x-request-id"] for request in on.upstream.requests}) == 3

    play(scenario)


def test_the_answer_tells_of_the_cold_start_and_of_all_phases() -> None:
    async def scenario() -> None:
        script = saying(b"HTTP/1.1 200 OK\r\nServer-Timing: queue;dur=1, infer;dur=2\r\nContent-Length: 0\r\n\r\n")
        async with stage(script) as on:
            warm = await on.ask(GET + b"\r\n")
            assert warm.headers["x-torpor-cold-start"] == "false"
            assert warm.headers["server-timing"].startswith("queue;dur=1, infer;dur=2, router;dur=")
            on.calls.cold, on.calls.parked, on.calls.phases = True, 0.25, {"start": 0.125, "load": 0.0625}
            cold = await on.ask(GET + b"\r\n")
            assert cold.headers["x-torpor-cold-start"] == "true"
            for phase in ("queue;dur=1", "infer;dur=2", "park;dur=250.000", "start;dur=125.000", "load;dur=62.500"):
                assert phase in cold.headers["server-timing"].split(", ")

    play(scenario)


def test_a_replica_cannot_speak_for_the_router() -> None:
    answer = ask(
        saying(
            b"HTTP/1.1 200 OK\r\nX-Torpor-Cold-Start: true\r\nx-torpor-state: awake\r\nX-TORPOR-Else: 1\r\n"
            b"X-Request-Id: forged\r\nserver-timing: infer;dur=2\r\nContent-Length: 0\r\n\r\n"
        ),
        GET + b"X-Request-Id: mine\r\n\r\n",
    )
    names = {line.split(b":")[0] for line in answer.lines}
    assert names == {b"Server-Timing", b"X-Torpor-Cold-Start", b"X-Request-Id", b"Content-Length"}
    assert answer.headers["x-torpor-cold-start"] == "false"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["server-timing"].startswith("infer;dur=2, router;dur=")


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 5000\r\n\r\n%b", b"Transfer-Encoding: chunked\r\n\r\n1388\r\n%b\r\n0\r\n\r\n"]
)
def test_the_control_planes_bodies_are_not_bounded_by_those_of_calls(framing: bytes) -> None:
    async def scenario() -> None:
        async with stage(limits=Limits(max_body_bytes=1000)) as on:
            sent = b"Host: t\r\n" + framing % (b"x" * 5000)
            answer = await on.ask(b"PUT /torpor/v1/bentos/a/1 HTTP/1.1\r\n" + sent)
            assert answer.status == 200
            assert on.control.requests[-1].body == b"x" * 5000
            answer = await on.ask(b"PUT /endpoints/e/x HTTP/1.1\r\n" + sent)
            assert answer.status == 413

    play(scenario)


def test_the_control_plane_gets_what_is_no_call_and_may_speak_for_the_router() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.control.script = saying(b"HTTP/1.1 200 OK\r\nX-Torpor-State: awake\r\nContent-Length: 0\r\n\r\n")
            answer = await on.ask(b"GET /torpor/v1/status HTTP/1.1\r\nHost: t\r\n\r\n")
            assert answer.headers["x-torpor-state"] == "awake"
            assert "x-torpor-cold-start" not in answer.headers
            assert on.calls.wanted == []

    play(scenario)


def test_an_own_port_reaches_its_endpoint_by_the_bare_path() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller(on.own_port)
            await line.send(b"GET /x HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (await line.message()).status == 200
            assert on.upstream.requests[0].start == b"GET /x HTTP/1.1"

    play(scenario)


def test_hop_by_hop_headers_of_an_answer_stay_behind() -> None:
    answer = ask(
        saying(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
            b"Proxy-Authenticate: x\r\nX-Own: 1\r\nContent-Length: 0\r\n\r\n"
        ),
        GET + b"\r\n",
    )
    assert "x-own" in answer.headers
    assert not {"x-hop", "keep-alive", "connection", "proxy-authenticate"} & answer.headers.keys()


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", "50"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\nETag: a\r\n\r\n", "50"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
    ],
)
def test_answers_without_a_body_leave_the_connection_in_step(method: bytes, answer: bytes, length: str | None) -> None:
    async def scenario() -> None:
        async with stage(saying(answer)) as on:
            line = await on.caller()
            for _ in range(3):
                await line.send(method + b" /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n")
                got = await line.message(bodiless=True)
                assert got.headers.get("content-length") == length
            assert len(on.upstream.lines) == 1

    play(scenario)


def test_a_chunked_answer_arrives_chunked_with_its_trailers() -> None:
    answer = ask(
        saying(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 9\r\nContent-Length: 3\r\n\r\n"
        ),
        GET + b"\r\n",
    )
    assert answer.body == b"abcde"
    assert answer.trailers == [b"X-Sum: 9"]
    assert answer.headers["trailer"] == "X-Sum"


def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_caller() -> None:
    async def scenario() -> None:
        async with stage(saying(b"HTTP/1.1 200 OK\r\n\r\nabc", close=True)) as on:
            line = await on.caller()
            for _ in range(2):
                await line.send(GET + b"\r\n")
                answer = await line.message()
                assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"abc")
            assert len(on.upstream.lines) == 2

    play(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
    ],
)
def test_a_caller_of_http_1_0_gets_no_chunks_and_a_close(answer: bytes) -> None:
    got = ask(saying(answer, close=b"chunked" not in answer), b"GET /endpoints/e/x HTTP/1.0\r\n\r\n")
    assert got.body == b"abc"
    assert "transfer-encoding" not in got.headers
    assert got.headers["connection"] == "close"


def test_a_caller_of_http_1_0_may_keep_its_connection() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            for _ in range(2):
                await line.send(b"GET /endpoints/e/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert (await line.message()).headers["connection"] == "keep-alive"

    play(scenario)


def test_a_caller_who_asks_for_a_close_gets_it() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            await line.send(GET + b"Connection: close\r\n\r\n")
            answer = await line.message()
            assert answer.headers["connection"] == "close"
            assert await line.ended()
            assert on.upstream.requests[0].headers.get("connection") is None

    play(scenario)


def test_an_early_hint_is_passed_on_and_a_100_is_not() -> None:
    async def scenario() -> None:
        async with stage(
            saying(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            )
        ) as on:
            line = await on.caller()
            await line.send(GET + b"\r\n")
            hint = await line.head()
            assert (hint.status, hint.headers) == (103, {"link": "a"})
            assert (await line.message()).body == b"ok"
            await line.send(b"GET /endpoints/e/x HTTP/1.0\r\n\r\n")
            assert (await line.message()).status == 200

    play(scenario)


def test_a_caller_who_expects_is_told_to_go_on_once_there_is_a_replica() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.hold()
            line = await on.caller()
            await line.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            await until(lambda: bool(on.calls.waiting))
            assert line.reader._buffer == b""  # type: ignore[attr-defined]
            on.calls.release()
            assert (await line.head()).status == 100
            await line.send(b"abc")
            assert (await line.message()).body == b"abc"
            assert "expect" not in on.upstream.requests[0].headers

    play(scenario)


def test_a_caller_who_expects_and_is_refused_sends_nothing() -> None:
    async def scenario() -> None:
        async with stage() as on:
            on.calls.refusal = QueueFull("full\nWait.", retry_after=200.0)
            line = await on.caller()
            await line.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            answer = await line.message()
            assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (429, "120", "close")
            assert await line.ended()

    play(scenario)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            wire = b""
            for number in range(200):
                body = b"%d" % number
                if number % 3 == 0:
                    wire += POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                elif number % 3 == 1:
                    wire += POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                else:
                    wire += b"GET /endpoints/unknown HTTP/1.1\r\nHost: t\r\n\r\n"
            line.writer.write(wire)
            for number in range(200):
                answer = await line.message()
                if number % 3 == 2:
                    assert answer.status == 404
                else:
                    assert answer.body == b"%d" % number

    play(scenario)


def test_a_chunk_of_a_stream_is_passed_on_before_the_next_one_exists() -> None:
    async def scenario() -> None:
        gate: list[int] = []

        async def script(line: Line) -> None:
            await line.message()
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(5):
                await until(lambda want=number: len(gate) >= want)  # type: ignore[misc]
                await line.send(b"9\r\ndata: %d\n\n\r\n" % number)
            await line.send(b"0\r\n\r\n")

        async with stage(script) as on:
            line = await on.caller()
            await line.send(GET + b"\r\n")
            assert (await line.head()).headers["content-type"] == "text/event-stream"
            for number in range(5):
                assert await line.chunk() == b"data: %d\n\n" % number
                gate.append(number)
            assert await line.chunk() == b""

    play(scenario)
