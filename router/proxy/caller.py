"""A caller's connection: reads its requests strictly and in order, one exchange at a time, and writes the answers."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, ClassVar, Final, cast

from router.proxy.answer import AnswerHead
from router.proxy.calls import Lease
from router.proxy.chunks import BadChunk, Chunks
from router.proxy.exchange import Exchange
from router.proxy.head import CHUNKED, RequestHead, bad, body_too_large, check_partial, too_slow
from router.proxy.refusal import refusal
from router.proxy.stamp import to_caller
from router.proxy.waking import failed_events
from torpor.errors import TorporError

if TYPE_CHECKING:
    from router.proxy.proxy import Proxy
    from router.proxy.replica import Replica

_NEVER: Final = math.inf
_END: Final = b"\r\n\r\n"
_HEAD, _BODY, _NEXT, _TUNNEL, _LINGER = range(5)


class Caller(asyncio.Protocol):
    """`_HEAD`: idle or within a head. `_BODY`: within the body of the running exchange. `_NEXT`: the exchange runs,
    what comes belongs to the next request. `_LINGER`: the last answer is given, what comes is discarded.

    End of file means that the caller has left, also when it could still read.
    """

    __slots__ = (
        "_buffer", "_chunks", "_exchange", "_head_max", "_held", "_keep", "_known", "_left", "_port", "_state",
        "_unsent", "clogged", "deadline", "forwarded", "proxy", "transport",
    )  # fmt: skip
    of: ClassVar[type[Exchange]] = Exchange

    def __init__(self, proxy: Proxy, port: int | None) -> None:
        self.proxy = proxy
        self._known = proxy.requests.known
        self._head_max = proxy.limits.max_header_bytes - len(_END)
        self._port = port
        self._state = _HEAD
        self._buffer = b""  # the start of a head, or what came after the running request
        self._exchange: Exchange | None = None
        self._chunks: Chunks | None = None
        self._left = 0  # body bytes still to come, or still allowed when the body is chunked
        self._keep = True
        self._held = False  # reading is paused
        self._unsent = _NEVER  # bytes of answers not yet taken, when last looked at
        self.clogged = False  # its writing buffer is full
        self.deadline = _NEVER  # when `overdue` is due
        self.forwarded = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        name = peer[0].encode() if isinstance(peer, tuple) else b"unknown"
        scheme = b"https" if transport.get_extra_info("sslcontext") else b"http"
        self.forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: " % (name, scheme)
        self.deadline = self.proxy.now + self.proxy.limits.keep_alive
        self.proxy.opened(self)

    # What the caller says.

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            self._read_head(self._buffer + data if self._buffer else data)
        elif state == _BODY:
            self._read_body(data)
        elif state == _NEXT:
            self._buffer += data
            if len(self._buffer) > self.proxy.limits.read_ahead:
                self.hold()
        elif state == _TUNNEL:
            exchange = self._exchange
            if exchange is not None and exchange.replica is not None:
                exchange.replica.transport.write(data)

    def _read_head(self, data: bytes) -> None:
        block, end, payload = data.partition(_END)
        if not end or len(block) > self._head_max or self.clogged:
            self._wait(data)
            return
        proxy = self.proxy
        head = self._known.get(block)
        try:
            if head is None:
                head = proxy.requests.read(block)
            if head.length > proxy.limits.max_body_bytes and head.length > proxy.body_max(head, self._port):
                raise body_too_large(head.length, proxy.limits)
            self._keep = head.keep
            if len(payload) == head.length:  # the common case: a request comes in one piece, and alone
                self._state = _NEXT
                self._buffer = b""
            else:
                payload = self._frame(head, payload)
        except TorporError as error:
            self._refuse(error)
            return
        complete = self._state == _NEXT
        try:
            target = proxy.target(head, self._port)
        except TorporError as error:
            exchange = self._exchange = self.of(self, head, None, payload, complete)
            exchange.refused(error)
            return
        exchange = self._exchange = self.of(self, head, target, payload, complete)
        self.deadline = _NEVER if complete else proxy.now + proxy.limits.body_within
        if target is None or not target.endpoint:
            proxy.pool.take(proxy.control, exchange)
        else:  # the answer may come before this returns
            proxy.calls.want(exchange, target, head.queue_within)
        if (self._buffer or not complete) and self._exchange is exchange:
            self._throttle(exchange)

    def _wait(self, data: bytes) -> None:
        """The head has not come whole, or may not be answered yet."""
        if self.clogged:  # the caller has to take its answers before it asks for more
            self._buffer = data
            self.hold()
            return
        try:
            check_partial(data, self.proxy.limits)
        except TorporError as error:
            self._refuse(error)
            return
        if data and not self._buffer:
            self.deadline = self.proxy.now + self.proxy.limits.header_within
        self._buffer = data

    def _frame(self, head: RequestHead, rest: bytes) -> bytes:
        """What of `rest` is the request's body; sets the state for what is still to come."""
        length = head.length
        if length == CHUNKED:
            self._chunks = Chunks()
            self._left = self.proxy.body_max(head, self._port)
            self._buffer = b""
            self._state = _BODY
            return self._unchunk(rest) if rest else b""
        if len(rest) > length:
            self._state = _NEXT
            self._buffer = rest[length:]
            return rest[:length]
        self._state = _BODY
        self._buffer = b""
        self._left = length - len(rest)
        return rest

    def _unchunk(self, data: bytes) -> bytes:
        """The payload in `data` of a chunked body. Raises the error that refuses it."""
        chunks = self._chunks
        assert chunks is not None
        try:
            payload = chunks.feed(data)
        except BadChunk as fault:
            raise bad(f"{fault}") from None
        self._left -= len(payload)
        if self._left < 0:
            raise body_too_large(self.proxy.limits.max_body_bytes - self._left, self.proxy.limits)
        if chunks.rest is not None:
            self._buffer = chunks.rest
            self._chunks = None
            self._state = _NEXT
        return payload

    def _throttle(self, exchange: Exchange) -> None:
        """Stops reading when enough has come for now."""
        if len(self._buffer) > self.proxy.limits.read_ahead or (self._state == _BODY and exchange.full()):
            self.hold()

    def _read_body(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._chunks is not None:
            try:
                data = self._unchunk(data)
            except TorporError as error:
                self._keep = False
                exchange.give_up(error)
                return
        else:
            left = self._left - len(data)
            if left <= 0:
                self._state = _NEXT
                if left:
                    self._buffer = data[left:]
                    data = data[:left]
            self._left = left
        exchange.body(data, self._state == _NEXT)
        limits = self.proxy.limits
        if self._state == _NEXT:
            self.deadline = self.proxy.now + limits.answer_within if exchange.replica is not None else _NEVER
        else:
            self.deadline = self.proxy.now + limits.body_within
            self._throttle(exchange)

    # Back-pressure.

    def hold(self) -> None:
        """Reads no more for now. Within a body, whom we wait for is the replica or the engine."""
        if self._held or self.transport.is_closing():
            return
        self._held = True
        self.transport.pause_reading()
        if self._state == _BODY and self._exchange is not None:
            granted = self._exchange.replica is not None
            self.deadline = self.proxy.now + self.proxy.limits.answer_within if granted else _NEVER

    def flow(self) -> None:
        if not self._held or self.transport.is_closing():
            return
        if self._state == _NEXT and len(self._buffer) > self.proxy.limits.read_ahead:
            return
        self._held = False
        self.transport.resume_reading()
        if self._state == _BODY:
            self.deadline = self.proxy.now + self.proxy.limits.body_within

    def pause_writing(self) -> None:
        self.clogged = True
        self._unsent = _NEVER
        self.deadline = self.proxy.now + self.proxy.limits.send_within
        exchange = self._exchange
        if exchange is not None and exchange.replica is not None:
            exchange.replica.hold()

    def resume_writing(self) -> None:
        self.clogged = False
        exchange = self._exchange
        if exchange is not None and exchange.replica is not None:
            self.deadline = _NEVER if exchange.answered else self.proxy.now + self.proxy.limits.answer_within
            exchange.replica.flow()
        elif self._state == _HEAD:
            self.deadline = self.proxy.now + self.proxy.limits.keep_alive
            self._again()

    # What its exchange says.

    def parked(self) -> None:
        """The engine or the pool has to act: no deadline of ours."""
        self.deadline = _NEVER

    def answer(self, exchange: Exchange, head: AnswerHead, timing: bytes, lease: Lease | None, body: bytes) -> bytes:
        """What to write of an answer whose head has come; from here on the exchange counts as answered."""
        exchange.answered = True
        exchange.replayable = False
        self.proxy.tallies.answered(exchange, head.status)
        self.deadline = _NEVER
        if self._keep and exchange.complete and head.plain and exchange.head.minor and not self.proxy.closing:
            framing = head.framing
        else:
            framing = self._framing(exchange, head)
        return to_caller(head, exchange.name, timing, lease, exchange.router, framing, body)

    def _framing(self, exchange: Exchange, head: AnswerHead) -> bytes:
        """How the answer's body ends and whether the connection stays, as header lines."""
        if head.status == 101:
            return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % (head.upgrade or exchange.head.upgrade)
        minor = exchange.head.minor
        if not exchange.complete or self.proxy.closing or (head.length < 0 and not minor):
            self._keep = False
        if self._keep and minor:
            return head.framing
        framing = head.framing if minor or head.stated else b""
        return framing + (b"Connection: keep-alive\r\n" if self._keep else b"Connection: close\r\n")

    def tunnel(self, replica: Replica) -> None:
        self._state = _TUNNEL
        self._keep = False
        if self._buffer:
            replica.transport.write(self._buffer)
            self._buffer = b""
        self.flow()

    def fail(self, exchange: Exchange, error: TorporError) -> None:
        """The exchange ended with an error: as an answer, or as a broken one when its head is out."""
        if exchange.answered:
            self._exchange = None
            self.proxy.tallies.broke(exchange)
            self.transport.abort()
            return
        self.proxy.tallies.refused(exchange, error.status)
        head = exchange.head
        self._keep = self._keep and exchange.complete and not self.proxy.closing
        if exchange.woken:
            self.transport.write(failed_events(error, exchange.path))
            self.finished()
            return
        shape = {"bodiless": head.method == b"HEAD", "control": self.proxy.of_control(head, self._port)}
        self.transport.write(refusal(error, exchange.path, exchange.id, keep=self._keep, **shape))
        self.finished()

    def finished(self) -> None:
        """The answer is written: on to the next request, or the end."""
        self._exchange = None
        if not self._keep or self._state == _BODY:
            self._linger(self._state == _BODY or bool(self._buffer))
            return
        self._state = _HEAD
        self.deadline = self.proxy.now + self.proxy.limits.keep_alive
        if self._buffer:
            # Not from here: a long line of pipelined requests would nest as deep.
            asyncio.get_running_loop().call_soon(self._again)
        elif self._held:
            self.flow()

    def _again(self) -> None:
        """Reads what has waited in the buffer, then the line again."""
        if self._state == _HEAD and not self.transport.is_closing():
            data, self._buffer = self._buffer, b""
            if data:
                self._read_head(data)
            if not self.clogged:
                self.flow()

    # How the connection ends.

    def _refuse(self, error: TorporError) -> None:
        """Nothing of the request was forwarded, and where the next one starts is unknown."""
        self.proxy.tallies.unmatched[error.status] += 1
        self.transport.write(refusal(error, b"", self.proxy.new_id().decode(), keep=False, bodiless=False))
        self._linger(True)

    def _linger(self, unread: bool) -> None:
        """Ends our side. A close with bytes unread would be a reset, which may overtake the answer at the caller."""
        self._state = _LINGER
        self._buffer = b""
        self._unsent = _NEVER
        self.deadline = self.proxy.now + self.proxy.limits.linger
        if not unread:
            self.transport.close()
        elif not self.transport.is_closing():
            if self.transport.can_write_eof():  # TLS has no half of a connection: the caller is read until it goes
                self.transport.write_eof()
            self.flow()

    def overdue(self, now: float) -> None:
        """`deadline` is over: whoever is waited for has had its time."""
        limits = self.proxy.limits
        unsent = self.transport.get_write_buffer_size()
        if self.clogged or self._state == _LINGER:
            if 0 < unsent < self._unsent:  # it is slow, but it takes
                self._unsent = unsent
                self.deadline = now + limits.send_within
            else:
                self.transport.abort()
        elif self._exchange is None:
            if self._buffer:
                self._refuse(too_slow("the request's head", limits.header_within))
            else:
                self.transport.close()
        elif self._state == _BODY and not self._held:
            self._exchange.give_up(too_slow("the next byte of the body", limits.body_within))
        elif self._exchange.target is None:
            self.deadline = _NEVER  # the control plane has bounds of its own: a start's, a drain's
        else:
            self._exchange.late()

    def stop(self) -> None:
        """The proxy closes: an idle connection ends now, a busy one with its answer."""
        if self._state == _HEAD:
            self.transport.close()
        elif self._state != _TUNNEL:
            self._keep = False

    def eof_received(self) -> bool:
        exchange = self._exchange
        if self._state == _TUNNEL and exchange is not None and exchange.replica is not None:
            if not exchange.replica.transport.is_closing():
                exchange.replica.transport.write_eof()
            return self.transport.can_write_eof()  # what the replica still says goes on, but over TLS
        if exchange is not None:
            self._leave()
            self.transport.abort()
        return False

    def comfort(self, now: float) -> None:
        if self._exchange is not None and not self.clogged:
            self._exchange.comfort(now)

    def gone(self) -> bool:
        """True when the caller has hung up while nothing was read from it, which hides the end of file."""
        return self._held and self.proxy.hung_up(self.transport)

    def _leave(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.caller_left()

    def connection_lost(self, why: Exception | None) -> None:
        self._leave()
        self.proxy.closed(self)
