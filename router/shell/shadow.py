"""Shadows: copies of calls go to a version whose answers nobody is given; they are compared and discarded.

A copy begins when its caller has the whole answer. It asks the engine as every call does, so that it wakes, waits and
holds a lease of its own line; it is sent once, and what becomes of it is counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio

from router.core.split import BETWEEN, Split, endpoint_of
from router.proxy.answer import CHUNKED, UNTIL_CLOSE, AnswerHead, Answers, bad_answer
from router.proxy.calls import Lease, Outcome, Target
from router.proxy.chunks import BadChunk, Chunks
from router.proxy.exchange import Exchange
from router.proxy.tap import KEPT_MAX, Answer, Tap
from router.shell.difference import difference
from router.shell.engine import Engine
from router.shell.waits import WakeCall
from torpor.errors import TorporError

log = logging.getLogger("torpor.shadow")

COPIES_MAX: Final = 32  # in flight of one endpoint; more are dropped
TAPS_MAX: Final = 128  # calls of one endpoint that are listened to at once; more are not copied
DIFFERENCES_KEPT: Final = 20  # in the endpoint's history, of each revision of its shadow
WITHIN: Final = 600.0  # seconds from the sending of a copy until its answer has come whole
_HEAD_MAX: Final = 256 * 1024
_PIECE: Final = 64 * 1024
_BACKLOG_PAUSE: Final = 0.005  # seconds between tries while a replica's accept queue is full
_END: Final = b"\r\n\r\n"


@dataclass(slots=True)
class Seen:
    """One endpoint's copies since the router's start or, if that was later, the endpoint's."""

    copied: int = 0
    same: int = 0
    different: int = 0
    failed: int = 0  # refused, broken off, late
    dropped: int = 0  # never sent: too many at once, or too long
    in_flight: int = 0
    taps: set[Exchange] = field(default_factory=set)  # those listened to, and some that ended since
    told: dict[tuple[str, int], int] = field(default_factory=dict)  # differences in the history, by line and revision


class Shadows:
    """The `Taps` of the proxy. `note` takes what belongs in an endpoint's history: name, kind, text."""

    def __init__(
        self,
        engine: Engine,
        note: Callable[[str, str, str], None],
        draw: Callable[[], float] = random.random,
        within: float = WITHIN,
    ) -> None:
        self._engine = engine
        self._note = note
        self._draw = draw
        self._within = within
        self._answers = Answers()
        self._tasks: asyncio.TaskGroup | None = None  # None: nothing is copied
        self.endpoints: dict[str, Seen] = {}

    async def run(self) -> None:
        """Copies until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:  # which also takes tasks from a protocol's callbacks
            self._tasks = tasks
            try:
                await anyio.sleep_forever()
            finally:
                self._tasks = None

    def seen(self, endpoint: str) -> dict[str, int]:
        seen = self.endpoints.get(endpoint) or Seen()
        return {name: getattr(seen, name) for name in ("copied", "same", "different", "failed", "dropped")}

    def forget(self, endpoint: str) -> None:
        """The endpoint was removed; one of the same name counts anew."""
        self.endpoints.pop(endpoint, None)

    def tap(self, exchange: Exchange, target: Target) -> Tap | None:
        """Only calls of the live revision are copied: it is what a shadow is compared with."""
        split: Split = target.split
        if not split.shadows or self._tasks is None or target.endpoint != endpoint_of(target.endpoint):
            return None
        line = split.shadow(self._draw())
        head = exchange.head
        if line is None or head.upgrade:
            return None
        seen = self.endpoints.setdefault(target.endpoint, Seen())
        if head.length > KEPT_MAX or self._crowded(seen):
            seen.dropped += 1
            return None
        seen.taps.add(exchange)
        return Tap(exchange, line, self._over)

    def _crowded(self, seen: Seen) -> bool:
        if len(seen.taps) >= TAPS_MAX:  # what ended without an answer did not say so
            seen.taps = {each for each in seen.taps if not each.over}
        return len(seen.taps) >= TAPS_MAX

    def _over(self, tap: Tap) -> None:
        endpoint = endpoint_of(tap.line)
        seen = self.endpoints.get(endpoint)
        if seen is None or self._tasks is None:
            return
        seen.taps.discard(tap.exchange)
        if tap.large or seen.in_flight >= COPIES_MAX or tap.line not in self._engine.catalog.beside:
            seen.dropped += 1
            return
        seen.in_flight += 1
        seen.copied += 1
        self._tasks.create_task(self._copy(seen, tap))

    async def _copy(self, seen: Seen, tap: Tap) -> None:
        try:
            answer = await self._asked(tap)
            place = None
            if answer.status != tap.answer.status or answer.body != tap.answer.body:
                place = await anyio.to_thread.run_sync(difference, tap.answer, answer)
        except (TorporError, OSError, EOFError, BadChunk):
            seen.failed += 1
        except Exception:  # the edge of a task: one copy must not end the others
            seen.failed += 1
            log.exception("a copy of call %s failed", tap.exchange.id)
        else:
            if place is None:
                seen.same += 1
            else:
                seen.different += 1
                self._tell(seen, tap, answer, place)
        finally:
            seen.in_flight -= 1

    def _tell(self, seen: Seen, tap: Tap, answer: Answer, place: str) -> None:
        endpoint, _, variant = tap.line.partition(BETWEEN)
        entry = self._engine.catalog.beside.get(tap.line)
        if entry is None:
            return
        key = (tap.line, entry.revision)
        told = seen.told.get(key, 0)
        if told < DIFFERENCES_KEPT:
            seen.told[key] = told + 1
            call, statuses = tap.exchange.id, f"{tap.answer.status} and {answer.status}"
            said = f"call {call}: the live revision and {variant}, revision {entry.revision}, answered {statuses}"
            self._note(endpoint, "differs", f"{said}\nthey differ first at {place}")

    async def _asked(self, tap: Tap) -> Answer:
        """The shadow's answer. Raises why there is none."""
        call = WakeCall()
        self._engine.copy(call, tap.line)
        try:
            await call.over.wait()
        except BaseException:
            if call.over.is_set() and call.lease is not None:  # granted and cancelled at once
                self._engine.settle(call.lease, Outcome.CALLER_LEFT)
            else:
                self._engine.leave(call)
            raise
        if call.lease is None:
            assert call.error is not None
            raise call.error
        return await self._sent(call.lease, tap)

    async def _sent(self, lease: Lease, tap: Tap) -> Answer:
        """The lease is settled when the replica has finished with it (docs/protocols.md, rules 1 and 2)."""
        outcome = Outcome.CALLER_LEFT
        try:
            reader, writer = await opened(lease.address)
            try:
                writer.writelines(tap.request)
                try:
                    with anyio.fail_after(self._within):
                        head, answer = await self._read(reader, tap.exchange.head.method)
                except TimeoutError:
                    outcome = Outcome.FAILED
                    writer.write_eof()
                    await rest(reader)
                    raise
                outcome = head.outcome
                if not head.keep:
                    await rest(reader)
                return answer
            finally:
                writer.transport.abort()
        except (OSError, EOFError) as error:
            if not isinstance(error, TimeoutError):
                outcome = Outcome.DIED
            raise
        except (TorporError, BadChunk):  # it was no HTTP
            outcome = Outcome.FAILED
            raise
        finally:
            self._engine.settle(lease, outcome)

    async def _read(self, reader: asyncio.StreamReader, method: bytes) -> tuple[AnswerHead, Answer]:
        while True:
            try:
                block = await reader.readuntil(_END)
            except asyncio.LimitOverrunError:
                raise bad_answer(f"its head is longer than {_HEAD_MAX} bytes") from None
            head, _ = self._answers.read(block[: -len(_END)], method, False)
            if head.status == 101:
                raise bad_answer("it switches protocols unasked")
            if head.status >= 200:
                break
        answer = Answer(head.status)
        chunks = Chunks() if head.length == CHUNKED else None
        left = math.inf if head.length < 0 else float(head.length)
        while left and (chunks is None or chunks.rest is None):
            data = await reader.read(int(min(left, _PIECE)))
            if not data:
                if head.length == UNTIL_CLOSE:
                    break
                raise EOFError("the answer broke off")
            left -= len(data)
            answer.add(data if chunks is None else chunks.feed(data))
        return head, answer


async def opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_unix_connection(address, limit=_HEAD_MAX)
        except BlockingIOError:  # a replica that lives and is slow, for which no Unix socket waits
            await asyncio.sleep(_BACKLOG_PAUSE)


async def rest(reader: asyncio.StreamReader) -> None:
    """Until the other side ends the connection: the method may still run."""
    while await reader.read(_PIECE):
        pass
