"""A connection to a replica: passes its answers to the caller, and holds the lease until it has finished."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from router.proxy.answer import CHUNKED, UNTIL_CLOSE, AnswerHead, bad_answer
from router.proxy.calls import Lease, Outcome
from router.proxy.chunks import LAST, BadChunk, Chunks, chunk, last
from router.proxy.waking import EVENTS
from torpor.errors import CallFailed, TorporError

if TYPE_CHECKING:
    from router.proxy.exchange import Exchange
    from router.proxy.pool import Pool

_END: Final = b"\r\n\r\n"
_HEAD_MAX: Final = 256 * 1024
_IDLE, _HEAD, _BODY, _TUNNEL, _FINISHING = range(5)


class Replica(asyncio.Protocol):
    """In use it belongs to one exchange. `_FINISHING`: the exchange is over, the lease is held until end of file."""

    __slots__ = (
        "_answers", "_buffer", "_chunks", "_exchange", "_keep", "_lease", "_left", "_outcome", "_paused", "_pool",
        "_recode", "_spoiled", "_state", "_unread", "address", "clogged", "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool, address: str) -> None:
        self._pool = pool
        self._answers = pool.answers
        self.address = address
        self.clogged = False  # its writing buffer is full
        self._exchange: Exchange | None = None
        self._lease: Lease | None = None
        self._state = _IDLE
        self._paused = False
        self._unread = False
        self._buffer = b""
        self._left = 0  # of the answer's body: bytes, CHUNKED or UNTIL_CLOSE
        self._chunks: Chunks | None = None
        self._recode = False  # the body goes on in the chunked coding
        self._keep = True
        self._spoiled = False  # bytes came past the answer's end: whose they are is unknown
        self._outcome = Outcome.DONE
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self, exchange: Exchange, lease: Lease | None) -> None:
        self._exchange = exchange
        self._lease = lease
        self._state = _HEAD
        if exchange.caller.clogged:
            self.hold()

    def abandon(self, outcome: Outcome) -> None:
        """The caller is gone: say so by a half-close, then let the replica finish (docs/protocols.md, rule 1)."""
        self._exchange = None
        self._chunks = None
        self._buffer = b""
        self._state = _FINISHING
        self._outcome = outcome
        if self._lease is None:
            self.transport.abort()
            return
        self.flow()
        if not self.transport.is_closing():
            self.transport.write_eof()

    # Back-pressure.

    def hold(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def flow(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.clogged = True
        if self._exchange is not None:
            self._exchange.caller.hold()

    def resume_writing(self) -> None:
        self.clogged = False
        if self._exchange is not None:
            self._exchange.caller.flow()

    # What the replica says.

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            rest = self._read_head(self._buffer + data if self._buffer else data)
            while rest:
                rest = self._read_head(rest)
        elif state == _BODY:
            self._read_body(data)
        elif state == _TUNNEL:
            assert self._exchange is not None
            self._exchange.caller.transport.write(data)
        elif state == _IDLE:
            self.transport.abort()  # an answer that nobody asked for

    def _read_head(self, data: bytes) -> bytes:
        """Reads a head, and what has come of its body; gives what follows an interim answer."""
        exchange = self._exchange
        assert exchange is not None
        block, end, body = data.partition(_END)
        if not end or len(block) > _HEAD_MAX:
            self._buffer = data
            if len(data) >= _HEAD_MAX or not data[:7].startswith(b"HTTP/1."[: len(data)]):
                self._bad(bad_answer(f"it starts with {data[:40]!r}"))
            return b""
        self._buffer = b""
        try:
            head, timing = self._answers.read(block, exchange.head.method, self._lease is None)
        except TorporError as error:
            self._bad(error)
            return b""
        if head.status < 200:
            return self._interim(exchange, head, timing, body)
        self._keep = head.keep
        self._outcome = head.outcome
        if exchange.woken:
            self._go_on(exchange, head, body)
            return b""
        caller, length = exchange.caller, head.length
        if len(body) >= length >= 0:  # the common case: it comes in one piece
            if len(body) > length:
                self._spoiled = True
                body = body[:length]
            if exchange.tap is not None:
                exchange.tap.answered(head.status, body)
            caller.transport.write(caller.answer(exchange, head, timing, self._lease, body))
            self._done(exchange)
        else:
            self._begin_body(exchange, head, timing, body)
        return b""

    def _interim(self, exchange: Exchange, head: AnswerHead, timing: bytes, rest: bytes) -> bytes:
        """A 1xx: passed on, but for 100, which the proxy gives itself, and to HTTP/1.0, which knows none."""
        if head.status == 101:
            self._switch(exchange, head, timing, rest)
            return b""
        exchange.replayable = False
        if head.status != 100 and exchange.head.minor:
            exchange.caller.transport.write(head.opening + b"\r\n\r\n")
        return rest

    def _begin_body(self, exchange: Exchange, head: AnswerHead, timing: bytes, body: bytes) -> None:
        """The answer's head has come, and the start of its body."""
        caller, length = exchange.caller, head.length
        if exchange.tap is not None:
            exchange.tap.answered(head.status)
        self._state = _BODY
        self._left = length
        self._recode = length < 0 and exchange.head.minor == 1
        self._chunks = Chunks() if length == CHUNKED else None
        block = caller.answer(exchange, head, timing, self._lease, b"")
        if body:
            self._read_body(body, block)
        else:
            caller.transport.write(block)

    def _go_on(self, exchange: Exchange, head: AnswerHead, body: bytes) -> None:
        """The caller was told `: waking` on an event stream: the answer goes on with it, or ends it."""
        if head.status != 200 or EVENTS not in head.opening.lower():
            exchange = self._drop(self._outcome)
            said = f"the endpoint answered {head.status}, and no event stream\nAsk without `Accept: text/event-stream`."
            exchange.caller.fail(exchange, CallFailed(said, status=head.status))
            return
        self._state = _BODY
        self._left = head.length
        self._recode = True
        self._chunks = Chunks() if head.length == CHUNKED else None
        if exchange.tap is not None:
            exchange.tap.answered(head.status)
        exchange.go_on(head.status)
        if head.length == 0:
            exchange.caller.transport.write(LAST)
            self._done(exchange)
        elif body:
            self._read_body(body)

    def _read_body(self, data: bytes, before: bytes = b"") -> None:
        exchange = self._exchange
        assert exchange is not None
        left = self._left
        if left < 0:
            self._read_unmeasured(exchange, data, before)
            return
        if len(data) > left:
            data = data[:left]
            self._spoiled = True
        self._left = left = left - len(data)
        if exchange.tap is not None:
            exchange.tap.answer.add(data)
        if self._recode:
            data = chunk(data) if left else chunk(data) + LAST
        exchange.caller.transport.write(before + data if before else data)
        if not left:
            self._done(exchange)

    def _read_unmeasured(self, exchange: Exchange, data: bytes, before: bytes) -> None:
        """Body bytes of an answer whose length is not told."""
        chunks = self._chunks
        ended = False
        if chunks is not None:
            try:
                data = chunks.feed(data)
            except BadChunk:
                self._broken()
                return
            ended = chunks.rest is not None
            if chunks.rest:
                self._spoiled = True
        if exchange.tap is not None:
            exchange.tap.answer.add(data)
        if self._recode:
            wire = before + chunk(data) if data else before
            if ended and chunks is not None:
                wire += last(chunks.trailers)
        else:
            wire = before + data
        if wire:
            exchange.caller.transport.write(wire)
        if ended:
            self._done(exchange)

    def _switch(self, exchange: Exchange, head: AnswerHead, timing: bytes, data: bytes) -> None:
        """101: from here on both ways are raw bytes."""
        if not exchange.head.upgrade:
            self._bad(bad_answer("it switches protocols unasked"))
            return
        self._state = _TUNNEL
        self._outcome = Outcome.DONE
        self._buffer = b""
        caller = exchange.caller
        caller.transport.write(caller.answer(exchange, head, timing, self._lease, data))
        caller.tunnel(self)

    # How an exchange ends.

    def _done(self, exchange: Exchange) -> None:
        """The answer has come whole."""
        self._exchange = None
        exchange.replica = exchange.lease = None
        exchange.over = True
        lease = self._lease
        unsent = self.transport.get_write_buffer_size()  # the rest of a request that its answer did not need
        if self._keep and exchange.complete and not (self._spoiled or unsent):
            self._lease = None
            self._state = _IDLE
            if self._paused:
                self.flow()
            self._pool.put(self)
            if lease is not None:
                self._pool.calls.settle(lease, self._outcome)
        else:
            self._spent(lease)
        exchange.caller.finished()
        if exchange.tap is not None:
            exchange.tap.ended()

    def _spent(self, lease: Lease | None) -> None:
        """The connection serves no further exchange."""
        if self._keep or self._spoiled or lease is None:
            self._lease = None
            self._state = _IDLE
            self.transport.abort()
            if lease is not None:
                self._pool.calls.settle(lease, self._outcome)
        else:
            # The method may still run (docs/protocols.md, rule 2): the lease is released at end of file.
            self._state = _FINISHING
            self.flow()

    def _bad(self, error: TorporError) -> None:
        """Not HTTP: the connection is dropped, and with it whatever the replica still says."""
        exchange = self._drop(Outcome.FAILED)
        exchange.caller.fail(exchange, error)

    def _broken(self) -> None:
        """The answer broke off after its head: the caller must see a truncated one."""
        exchange = self._drop(Outcome.DIED)
        exchange.caller.proxy.tallies.broke(exchange)
        exchange.caller.transport.abort()

    def _drop(self, outcome: Outcome) -> Exchange:
        exchange = self._exchange
        assert exchange is not None
        self._exchange = None
        self._state = _IDLE
        exchange.over = True
        exchange.replica = exchange.lease = exchange.tap = None
        exchange.sent.clear()
        self.transport.abort()
        self._settle(outcome)
        return exchange

    def _settle(self, outcome: Outcome) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._pool.calls.settle(lease, outcome)

    def eof_received(self) -> None:
        exchange = self._exchange
        if self._state == _HEAD and exchange is not None:
            # Nothing of the request was written: a pooled connection that had gone stale.
            self._unread = self.transport.get_write_buffer_size() >= exchange.sent_bytes

    def connection_lost(self, why: Exception | None) -> None:
        self._pool.lost(self)
        exchange = self._exchange
        if exchange is None:
            self._settle(self._outcome)
        elif self._state == _HEAD and not self._buffer:
            self._exchange = self._lease = None
            exchange.lost(self._unread or _untouched(exchange, why))
        elif self._state == _HEAD:
            self._bad(bad_answer("it ends within its head"))
        elif self._state == _TUNNEL or (self._left == UNTIL_CLOSE and why is None):
            self._ended(exchange)
        else:
            self._broken()

    def _ended(self, exchange: Exchange) -> None:
        """End of file is the regular end: of a tunnel, or of a body without a length."""
        caller = exchange.caller
        if self._recode and self._state == _BODY:
            caller.transport.write(last([]))
        self._exchange = None
        exchange.over = True
        exchange.replica = exchange.lease = None
        self._settle(self._outcome)
        caller.finished()
        if exchange.tap is not None:
            exchange.tap.ended()


def _untouched(exchange: Exchange, why: Exception | None) -> bool:
    """True when no byte of the request was read by the replica.

    A Unix socket is reset, instead of ended, when its peer closes it with bytes unread or never accepted it. As the
    request lay there in one piece of at most `replay_bytes`, which a read takes whole, unread means none of it.
    """
    return exchange.pieces == 1 and isinstance(why, ConnectionResetError | BrokenPipeError)
