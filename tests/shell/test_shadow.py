"""Copies to a shadow, over real sockets: whole, once, after the caller's answer, and seen by nobody but the counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from router.core.catalog import Catalog, Registered
from router.core.settings import Settings
from router.core.split import Rule, Variant, split_of
from router.proxy.calls import Call, Outcome, Target
from router.proxy.tap import KEPT_MAX
from router.shell.shadow import COPIES_MAX, DIFFERENCES_KEPT, Shadows
from tests.shell.fakes.calls import FakeCalls
from tests.shell.fakes.wire import Line, Script, Stage, Upstream, echo, play, stage, until
from torpor.errors import QueueFull

SHADOW = "e~next"
Noted = list[tuple[str, str, str]]


class SplitCalls(FakeCalls):
    """The live line's calls, and those of the shadow, each at an address of its own."""

    def __init__(self, live: str, shadow: str, weight: int) -> None:
        super().__init__(live)
        self.addresses = {"e": live, SHADOW: shadow}
        self.beside = FakeCalls(shadow)
        variants = (Variant("next", 2, Rule("shadow", "", weight)),)
        self.split = split_of("e", variants)
        self.catalog_ = Catalog()
        self.catalog_.put(Registered("e", 1, "b:1", {}, Settings(), 0.0))
        self.catalog_.vary("e", variants, {SHADOW: Registered(SHADOW, 2, "b:2", {}, Settings(), 0.0)})

    def resolve(self, path: bytes, host: bytes, port: int | None) -> Target | None:
        found = super().resolve(path, host, port)
        return None if found is None else found._replace(split=self.split)

    def share(self, target: Target, head: Any) -> Target:
        return target


@dataclass
class BesideEngine:
    """What a shadow asks of the engine."""

    calls: FakeCalls
    catalog: Catalog

    def copy(self, call: Call, line: str) -> None:
        assert line == SHADOW
        self.calls.want(call, Target(line, b"/"), None)

    def leave(self, call: Call) -> None:
        self.calls.leave(call)

    def settle(self, lease: Any, outcome: Outcome) -> None:
        self.calls.settle(lease, outcome)


@dataclass
class Pair:
    """A proxy before a live replica, and a shadow's."""

    on: Stage
    shadows: Shadows
    beside: FakeCalls
    upstream: Upstream
    noted: Noted = field(default_factory=list)

    def seen(self) -> dict[str, int]:
        return {name: count for name, count in self.shadows.seen("e").items() if count}

    async def ended(self, copies: int) -> None:
        """Returns when so many copies have come to an end."""
        await until(lambda: sum(map(self.shadows.seen("e").__getitem__, ("same", "different", "failed"))) == copies)


@asynccontextmanager
async def pair(
    live: Script | None = None, shadow: Script | None = None, weight: int = 100, within: float = 10.0
) -> AsyncIterator[Pair]:
    """Ends with every lease settled, or fails."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "shadow.sock"))
        upstream = Upstream(path, shadow or (lambda line: echo(upstream, line)))
        await upstream.open()
        async with stage(live) as on:
            calls = SplitCalls(on.calls.address, path, weight)
            on.proxy.calls = on.proxy.pool.calls = calls
            on.calls = calls
            noted: Noted = []
            engine: Any = BesideEngine(calls.beside, calls.catalog_)
            draws = iter(range(10**9))
            shadows = Shadows(engine, lambda *event: noted.append(event), lambda: next(draws) % 100 / 100, within)
            on.proxy.taps = shadows
            copying = asyncio.create_task(shadows.run())
            await until(lambda: shadows._tasks is not None)
            yield Pair(on, shadows, calls.beside, upstream, noted)
            copying.cancel()
            await asyncio.wait([copying])
        await upstream.close()
        assert calls.beside.held == 0
        assert not calls.beside.waiting


def post(body: bytes, *more: bytes) -> bytes:
    lines = (b"POST /endpoints/e/x?y=1 HTTP/1.1", b"Host: t", b"Content-Length: %d" % len(body), *more)
    return b"\r\n".join((*lines, b"", body))


def saying(answer: bytes) -> Script:
    async def script(line: Line) -> None:
        while True:
            await line.message()
            await line.send(answer)

    return script


def answer_of(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def played(scenario: Callable[[Pair], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with pair(**options) as both:
            await scenario(both)

    play(whole)


def test_a_copy_is_the_request_as_the_live_replica_got_it_and_its_equal_answer_is_counted() -> None:
    async def scenario(both: Pair) -> None:
        answer = await both.on.ask(post(b"hello", b"X-Request-Id: abc", b"X-Own: 1", b"X-Torpor-Token: none"))
        assert answer.body == b"hello"
        await both.ended(1)
        (live,), (copy,) = both.on.upstream.requests, both.upstream.requests
        assert (copy.start, copy.lines, copy.body) == (live.start, live.lines, live.body)
        assert copy.headers["x-request-id"] == "abc"
        assert both.seen() == {"copied": 1, "same": 1}
        assert both.beside.settled == [Outcome.DONE]
        assert both.noted == []

    played(scenario)


def test_a_body_in_pieces_is_copied_whole_and_a_chunked_one_too() -> None:
    async def scenario(both: Pair) -> None:
        large = b"".join(b"%07d\n" % number for number in range(60_000))  # above what is kept to be sent again
        line = await both.on.caller()
        request = post(large)
        for start in range(0, len(request), 100_000):
            await line.send(request[start : start + 100_000])
            await asyncio.sleep(0)
        assert (await line.message()).body == large
        head = b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        await line.send(head + b"3\r\nabc\r\n")
        await line.send(b"2\r\nde\r\n0\r\n\r\n")
        assert (await line.message()).body == b"abcde"
        await line.close()
        await both.ended(2)
        assert sorted(request.body for request in both.upstream.requests) == sorted((large, b"abcde"))
        assert both.seen() == {"copied": 2, "same": 2}

    played(scenario)


def test_the_caller_has_its_answer_while_the_shadow_has_not_begun() -> None:
    async def scenario(both: Pair) -> None:
        both.beside.hold()
        line = await both.on.caller()
        for _ in range(3):
            await line.send(post(b"x"))
            assert (await line.message()).body == b"x"
        assert both.upstream.requests == []
        await until(lambda: len(both.beside.waiting) == 3)
        both.beside.release()
        await both.ended(3)
        await line.close()

    played(scenario)


@pytest.mark.parametrize(
    ("live", "copy", "place"),
    [
        (answer_of(b"{}"), answer_of(b"oh", b"500 Oh"), "the status"),
        (answer_of(b'{"a": [1, 2.5]}'), answer_of(b'{"a": [1, 2.6]}'), '$["a"][1]'),
        (answer_of(b"plain"), answer_of(b"plane"), "byte 3 of the body"),
        (answer_of(b"plain"), answer_of(b"plain and more"), "one body ends at byte 5"),
    ],
)
def test_a_difference_is_told_with_its_place_and_without_the_bodies(live: bytes, copy: bytes, place: str) -> None:
    async def scenario(both: Pair) -> None:
        await both.on.ask(post(b"x", b"X-Request-Id: abc"))
        await both.ended(1)
        assert both.seen() == {"copied": 1, "different": 1}
        ((name, kind, text),) = both.noted
        status = copy.split(b" ")[1].decode()
        assert (name, kind) == ("e", "differs")
        assert text == (
            f"call abc: the live revision and next, revision 2, answered 200 and {status}\nthey differ first at {place}"
        )

    played(scenario, live=saying(live), shadow=saying(copy))


def test_the_history_keeps_the_first_differences_and_the_counts_all() -> None:
    async def scenario(both: Pair) -> None:
        line = await both.on.caller()
        for number in range(DIFFERENCES_KEPT + 5):
            await line.send(post(b"x"))
            await line.message()
            await both.ended(number + 1)
        await line.close()
        assert both.seen()["different"] == DIFFERENCES_KEPT + 5
        assert len(both.noted) == DIFFERENCES_KEPT

    played(scenario, shadow=saying(answer_of(b"another")))


def test_only_its_percents_of_the_calls_are_copied() -> None:
    async def scenario(both: Pair) -> None:
        line = await both.on.caller()
        for _ in range(100):  # the draws are 0.00, 0.01, ... 0.99
            await line.send(post(b"x"))
            await line.message()
        await line.close()
        await both.ended(7)
        assert both.seen() == {"copied": 7, "same": 7}

    played(scenario, weight=7)


def test_copies_above_the_bound_are_dropped_and_counted() -> None:
    async def scenario(both: Pair) -> None:
        both.beside.hold()
        line = await both.on.caller()
        for _ in range(COPIES_MAX + 3):
            await line.send(post(b"x"))
            await line.message()
        assert both.seen() == {"copied": COPIES_MAX, "dropped": 3}
        both.beside.release()
        await both.ended(COPIES_MAX)
        await line.send(post(b"x"))
        await line.message()
        await both.ended(COPIES_MAX + 1)
        await line.close()

    played(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_that_is_too_long_is_not_copied_and_reaches_the_live_one(chunked: bool) -> None:
    async def scenario(both: Pair) -> None:
        body = b"x" * (KEPT_MAX + 1)
        head = b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else post(body)
        assert (await both.on.ask(request)).body == body
        assert (await both.on.ask(post(body[:-1]))).body == body[:-1]
        await both.ended(1)
        assert both.seen() == {"copied": 1, "same": 1, "dropped": 1}

    played(scenario)


def test_of_long_answers_the_first_part_is_compared_and_all_is_read() -> None:
    start = b"x" * KEPT_MAX

    async def scenario(both: Pair) -> None:
        assert len((await both.on.ask(post(b"x"))).body) == KEPT_MAX + 5
        await both.ended(1)
        assert both.seen() == {"copied": 1, "same": 1}
        assert both.beside.settled == [Outcome.DONE]

    played(scenario, live=saying(answer_of(start + b"12345")), shadow=saying(answer_of(start + b"54321")))


async def breaks_off(line: Line) -> None:
    await line.message()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    line.abort()


async def says_nothing(line: Line) -> None:
    await line.message()
    await line.reader.read()  # until it is told that nobody waits any more


async def is_no_http(line: Line) -> None:
    await line.message()
    await line.send(b"SSH-2.0-x\r\n\r\n")


@pytest.mark.parametrize(
    ("shadow", "outcome"),
    [(breaks_off, Outcome.DIED), (says_nothing, Outcome.FAILED), (is_no_http, Outcome.FAILED)],
)
def test_a_copy_that_fails_is_counted_never_sent_again_and_its_lease_is_settled(
    shadow: Script, outcome: Outcome
) -> None:
    async def scenario(both: Pair) -> None:
        assert (await both.on.ask(post(b"x"))).status == 200
        await both.ended(1)
        assert both.seen() == {"copied": 1, "failed": 1}
        assert (both.beside.settled, len(both.beside.granted)) == ([outcome], 1)

    played(scenario, shadow=shadow, within=0.05)


def test_a_refused_copy_is_counted() -> None:
    async def scenario(both: Pair) -> None:
        both.beside.refusal = QueueFull("full\nlater")
        assert (await both.on.ask(post(b"x"))).status == 200
        await both.ended(1)
        assert both.seen() == {"copied": 1, "failed": 1}

    played(scenario)


def test_a_copy_in_the_chunked_coding_or_until_the_end_is_compared_by_what_it_says() -> None:
    ways = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde",
    ]

    def in_turn(order: list[bytes]) -> Script:
        left = iter(order)

        async def script(line: Line) -> None:
            while True:
                await line.message()
                answer = next(left)
                await line.send(answer)
                if b"close" in answer:
                    return

        return script

    async def scenario(both: Pair) -> None:
        for number in range(3):
            assert (await both.on.ask(post(b"x"))).status in (103, 200)
            await both.ended(number + 1)
        assert both.seen() == {"copied": 3, "same": 3}

    played(scenario, live=in_turn([*ways[2:], ways[0], ways[0]]), shadow=in_turn(ways))


def test_a_call_without_a_whole_answer_is_not_copied() -> None:
    async def scenario(both: Pair) -> None:
        line = await both.on.caller()
        await line.send(post(b"x"))
        assert await line.head()
        await line.close()
        await until(lambda: both.on.calls.held == 0)
        assert both.seen() == {}
        assert both.upstream.requests == []

    played(scenario, live=breaks_off)


def test_a_call_that_was_answered_before_its_body_had_come_is_not_copied() -> None:
    async def refuses(line: Line) -> None:
        await line.head()
        await line.send(answer_of(b"no", b"403 No"))

    async def scenario(both: Pair) -> None:
        line = await both.on.caller()
        await line.send(post(b"x" * 1000)[:-1])
        assert (await line.message()).status == 403
        await line.close()
        assert both.seen() == {}

    played(scenario, live=refuses)


def test_what_is_in_flight_when_the_router_ends_is_settled_and_not_counted() -> None:
    async def scenario(both: Pair) -> None:
        await both.on.ask(post(b"x"))
        await until(lambda: both.beside.held == 1)
        both.beside.hold()
        await both.on.ask(post(b"x"))
        await until(lambda: len(both.beside.waiting) == 1)

    played(scenario, shadow=says_nothing)
