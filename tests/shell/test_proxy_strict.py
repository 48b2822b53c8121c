"""What RFC 9112 calls an error is refused, and nothing of it reaches a replica."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.proxy.limits import Limits
from tests.shell.fakes.wire import play, stage, until

POST = b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\n"
GET = b"GET /endpoints/e/x HTTP/1.1\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED: dict[str, tuple[int, bytes]] = {
    # Lengths
    "two different lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "two equal lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "a list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "a signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "a negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "a length with an underscore": (400, POST + b"Content-Length: 1_0\r\n\r\n0123456789"),
    "an empty length": (400, POST + b"Content-Length: \r\n\r\n"),
    "a length in other digits": (400, POST + "Content-Length: ٣\r\n\r\nabc".encode()),
    "a huge length": (400, POST + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "length and chunked": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
    # Transfer codings
    "an unknown coding": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "chunked not last": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "two coding lines": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two coding lines, one a trick": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    "a coding in quotes": (400, POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    "a vertical tab before the coding": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked over HTTP/1.0": (
        400,
        b"POST /endpoints/e/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    # Chunks
    "a chunk size that is no number": (400, CHUNKED + b"z\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with 0x": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": (400, CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a space": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "a chunk size above 60 bits": (400, CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "an empty chunk size": (400, CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk longer than its size": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "a chunk line that ends with LF": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "a chunk that ends with LF": (400, CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    "a chunk line with a bare CR": (400, CHUNKED + b"3\rX\r\nabc\r\n0\r\n\r\n"),
    "a chunk extension that is too long": (400, CHUNKED + b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk extension that is no token": (400, CHUNKED + b"3;a=\x01\r\nabc\r\n0\r\n\r\n"),
    "a chunk extension with a bare LF": (400, CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "a trailer that is no header": (400, CHUNKED + b"0\r\nno colon\r\n\r\n"),
    "a trailer with a space before the colon": (400, CHUNKED + b"0\r\nA : b\r\n\r\n"),
    "trailers that are too long": (400, CHUNKED + b"0\r\n" + b"A: %b\r\n" % (b"x" * 4000) * 3 + b"\r\n"),
    # Header lines
    "a folded line": (400, POST + b"A: b\r\n c\r\n\r\n"),
    "a folded line by a tab": (400, POST + b"A: b\r\n\tc\r\n\r\n"),
    "a first line with a space before": (400, b"GET /endpoints/e/x HTTP/1.1\r\n Host: t\r\n\r\n"),
    "a space before the colon": (400, POST + b"Content-Length : 3\r\n\r\nabc"),
    "a tab before the colon": (400, POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    "no colon": (400, POST + b"Nothing\r\n\r\n"),
    "an empty name": (400, POST + b": b\r\n\r\n"),
    "a name that is no token": (400, POST + b"A(b): c\r\n\r\n"),
    "a name that is not ASCII": (400, POST + "É: c\r\n\r\n".encode()),
    "a bare LF in a value": (400, POST + b"A: b\nContent-Length: 3\r\n\r\nabc"),
    "a bare CR in a value": (400, POST + b"A: b\rContent-Length: 3\r\n\r\nabc"),
    "a NUL in a value": (400, POST + b"A: b\x00c\r\n\r\n"),
    "a DEL in a value": (400, POST + b"A: b\x7fc\r\n\r\n"),
    "line ends of LF": (400, b"GET /endpoints/e/x HTTP/1.1\nHost: t\n\n"),
    "the last line end of LF": (400, GET + b"Host: t\r\n\n"),
    "line ends of CR": (400, b"GET /endpoints/e/x HTTP/1.1\rHost: t\r\r"),
    # Host
    "no host": (400, GET + b"\r\n"),
    "two hosts": (400, GET + b"Host: a\r\nHost: b\r\n\r\n"),
    "two equal hosts": (400, GET + b"Host: a\r\nHost: a\r\n\r\n"),
    "a host with a path": (400, GET + b"Host: a/b\r\n\r\n"),
    "a host with a user": (400, GET + b"Host: u@a\r\n\r\n"),
    "a list of hosts": (400, GET + b"Host: a b\r\n\r\n"),
    "a host unlike the target's": (400, b"GET http://a/endpoints/e/x HTTP/1.1\r\nHost: b\r\n\r\n"),
    # Request lines
    "a method in lower case": (400, b"get /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a method that is no word": (400, b"G@T /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"),
    "two spaces": (400, b"GET  /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a tab in the request line": (400, b"GET\t/endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a space in the target": (400, b"GET /endpoints/e/x y HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a control character in the target": (400, b"GET /endpoints/e/\x01 HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a target that is not ASCII": (400, "GET /endpoints/e/é HTTP/1.1\r\nHost: t\r\n\r\n".encode()),
    "a fragment": (400, b"GET /endpoints/e/x#y HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a target without a slash": (400, b"GET endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"),
    "no version": (400, b"GET /endpoints/e/x\r\nHost: t\r\n\r\n"),
    "version 0.9": (400, b"GET /endpoints/e/x HTTP/0.9\r\nHost: t\r\n\r\n"),
    "version 1.2": (400, b"GET /endpoints/e/x HTTP/1.2\r\nHost: t\r\n\r\n"),
    "version 2.0": (400, b"GET /endpoints/e/x HTTP/2.0\r\nHost: t\r\n\r\n"),
    "version in lower case": (400, b"GET /endpoints/e/x http/1.1\r\nHost: t\r\n\r\n"),
    "HTTP/2 spoken at once": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "CONNECT": (400, b"CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n"),
    "TRACE": (400, b"TRACE /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a star without OPTIONS": (400, b"GET * HTTP/1.1\r\nHost: t\r\n\r\n"),
    "an expectation that nobody can meet": (417, POST + b"Expect: tea\r\nContent-Length: 3\r\n\r\nabc"),
    "a bad queue time": (400, POST + b"X-Torpor-Queue-Within: soon\r\n\r\n"),
    "a negative queue time": (400, POST + b"X-Torpor-Queue-Within: -1\r\n\r\n"),
    "an endless queue time": (400, POST + b"X-Torpor-Queue-Within: inf\r\n\r\n"),
    # Sizes
    "a target that is too long": (414, b"GET /endpoints/e/" + b"x" * 2000 + b" HTTP/1.1\r\nHost: t\r\n\r\n"),
    "a target without an end": (414, b"GET /endpoints/e/" + b"x" * 2000),
    "too many header lines": (431, POST + b"A: b\r\n" * 40 + b"\r\n"),
    "a head that is too long": (431, POST + b"A: %b\r\n\r\n" % (b"x" * 5000)),
    "a head without an end": (431, POST + b"A: " + b"x" * 5000),
    "a body that is too long": (413, POST + b"Content-Length: 1001\r\n\r\n"),
    "a body that is too long, and expects": (413, POST + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n"),
    "a chunked body that is too long": (413, CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"),
}
SMALL = Limits(max_target=1000, max_headers=32, max_header_bytes=4096, max_body_bytes=1000, linger=0.2)


@pytest.mark.parametrize("shape", REFUSED)
def test_a_forbidden_shape_is_refused_closed_and_not_forwarded(shape: str) -> None:
    status, request = REFUSED[shape]
    smuggled = b"GET /endpoints/e/smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

    async def scenario() -> None:
        async with stage(limits=SMALL) as on:
            line = await on.caller()
            await line.send(request if status in (414, 431) or shape == "TLS" else request + smuggled)
            answer = await line.message()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            error = json.loads(answer.body)
            assert error["error"].count("\n") == 1
            assert error["retryable"] is False
            assert await line.ended()
            assert on.upstream.lines == []
            assert on.calls.wanted == []

    play(scenario)


@pytest.mark.parametrize("shape", ["two different lengths", "a chunk longer than its size", "a folded line"])
def test_a_forbidden_shape_is_refused_when_it_comes_byte_by_byte(shape: str) -> None:
    _, request = REFUSED[shape]

    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            for at in range(len(request)):
                line.writer.write(request[at : at + 1])
                await asyncio.sleep(0)
            answer = await line.message()
            assert answer.status == 400
            assert await line.ended()
            assert not any(b"smuggled" in seen.start for seen in on.upstream.requests)

    play(scenario)


def test_bare_line_ends_are_refused_before_the_head_has_an_end() -> None:
    async def scenario() -> None:
        async with stage() as on:
            answer = await on.ask(b"GET /endpoints/e/x HTTP/1.1\nHost: t\n")
            assert answer.status == 400

    play(scenario)


def test_a_chunked_body_over_the_limit_is_refused_before_it_has_come() -> None:
    async def scenario() -> None:
        async with stage(limits=SMALL) as on:
            line = await on.caller()
            await line.send(CHUNKED + b"100\r\n" + b"x" * 256 + b"\r\n")
            await until(lambda: bool(on.calls.granted))
            await line.send(b"400\r\n" + b"x" * 1000)
            answer = await line.message()
            assert answer.status == 413
            assert await line.ended()
            assert on.upstream.requests == []

    play(scenario)


def test_a_refusal_reaches_a_caller_who_still_sends() -> None:
    async def scenario() -> None:
        async with stage(limits=SMALL) as on:
            line = await on.caller()
            line.writer.write(POST + b"Content-Length: 50000000\r\n\r\n")
            for _ in range(50):
                line.writer.write(b"x" * 100_000)
            answer = await line.message()
            assert answer.status == 413

    play(scenario)


ACCEPTED: dict[str, bytes] = {
    "an empty line before": b"\r\n" + GET + b"Host: t\r\n\r\n",
    "no space after the colon": GET + b"Host:t\r\n\r\n",
    "an empty host": GET + b"Host:\r\n\r\n",
    "an absolute target": b"GET http://t/endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n",
    "a host that is an address": GET + b"Host: [::1]:7300\r\n\r\n",
    "bytes above ASCII in a value": GET + b"Host: t\r\nA: \xe9\r\n\r\n",
    "leading zeros of a length": POST + b"Content-Length: 003\r\n\r\nabc",
    "chunks with extensions and trailers": CHUNKED + b'3;a;b=c;d="e\\"f"\r\nabc\r\n0\r\nT: u\r\n\r\n',
    "upper case chunk sizes": CHUNKED + b"0A\r\n0123456789\r\n000\r\n\r\n",
    "chunked in upper case": POST + b"transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /endpoints/e/x HTTP/1.0\r\n\r\n",
    "another method": b"PROPFIND /endpoints/e/x HTTP/1.1\r\nHost: t\r\n\r\n",
}


@pytest.mark.parametrize("shape", ACCEPTED)
@pytest.mark.parametrize("bytewise", [False, True])
def test_an_allowed_shape_is_forwarded(shape: str, bytewise: bool) -> None:
    async def scenario() -> None:
        async with stage() as on:
            line = await on.caller()
            for piece in [bytes([each]) for each in ACCEPTED[shape]] if bytewise else [ACCEPTED[shape]]:
                line.writer.write(piece)
                await asyncio.sleep(0)
            answer = await line.message()
            assert answer.status == 200
            seen = on.upstream.requests[0]
            assert seen.start.split(b" ")[1:] == [b"/x", b"HTTP/1.1"]
            assert seen.body == answer.body

    play(scenario)


def test_a_head_that_does_not_come_to_its_end_is_timed_out() -> None:
    async def scenario() -> None:
        async with stage(limits=Limits(header_within=0.05, linger=0.1)) as on:
            line = await on.caller()
            await line.send(GET)
            answer = await line.message()
            assert answer.status == 408
            assert await line.ended()

    play(scenario)


def test_a_body_that_does_not_come_to_its_end_is_timed_out() -> None:
    async def scenario() -> None:
        async with stage(limits=Limits(body_within=0.05, linger=0.1)) as on:
            line = await on.caller()
            await line.send(POST + b"Content-Length: 3\r\n\r\na")
            answer = await line.message()
            assert answer.status == 408
            assert await line.ended()

    play(scenario)


def test_an_idle_connection_is_closed() -> None:
    async def scenario() -> None:
        async with stage(limits=Limits(keep_alive=0.05)) as on:
            line = await on.caller()
            assert await line.ended()

    play(scenario)
