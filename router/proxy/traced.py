"""A caller's connection whose calls are traced: what the router's own spans are told, and when.

Without a `Traces` no connection is one of these, and nothing here costs a call anything.
"""

from __future__ import annotations

from router.proxy.answer import AnswerHead
from router.proxy.caller import Caller
from router.proxy.calls import Lease, Target, Trace
from router.proxy.exchange import Exchange
from router.proxy.head import RequestHead
from router.proxy.lines import without
from torpor.errors import TorporError

_NAME = b"traceparent"
_END = b"\r\n\r\n"


class TracedExchange(Exchange):
    """Its replica gets the `traceparent` of the router's span; its caller's is that span's parent."""

    __slots__ = ("trace",)

    def __init__(
        self, caller: Caller, head: RequestHead, target: Target | None, payload: bytes, complete: bool
    ) -> None:
        self.trace: Trace | None = None  # None: not a call of an endpoint
        traces = caller.proxy.traces
        if traces is None or target is None or not target.endpoint:
            return super().__init__(caller, head, target, payload, complete)
        named = [line for line in head.passed if line[: len(_NAME) + 1].lower() == _NAME + b":"]
        if named:  # its head is this request's alone: none with a traceparent is remembered
            head.passed = without(head.passed, {_NAME})
        super().__init__(caller, head, target, payload, complete)
        trace = self.trace = traces.begin(target, head.method, self.name, named, self.started)
        [wire] = self.sent
        opening, end, rest = wire.partition(_END)
        self.sent = [opening + b"\r\ntraceparent: " + trace.traceparent + end + rest]
        self.sent_bytes = len(self.sent[0])

    def go_on(self, status: int) -> None:
        if self.trace is not None:
            self.trace.answered(status, self.lease, self.router, b"")
        super().go_on(status)

    def caller_left(self) -> None:
        if self.trace is not None:
            # Over and not finished: the replica broke off within its answer.
            self.trace.ended("broken" if self.over and self.answered else "caller_left")
        super().caller_left()


class TracedCaller(Caller):
    """Tells the trace of each exchange how it goes on."""

    __slots__ = ()
    of = TracedExchange

    def answer(self, exchange: Exchange, head: AnswerHead, timing: bytes, lease: Lease | None, body: bytes) -> bytes:
        trace = traced(exchange)
        if trace is not None:
            trace.answered(head.status, lease, exchange.router, timing)
        return super().answer(exchange, head, timing, lease, body)

    def fail(self, exchange: Exchange, error: TorporError) -> None:
        trace = traced(exchange)
        if trace is not None:
            trace.failed(error.status, error.code)
        super().fail(exchange, error)
        if trace is not None:  # its head was out: the answer breaks off
            trace.ended(error.code)

    def finished(self) -> None:
        trace = traced(self._exchange)
        if trace is not None:
            trace.ended(None)
        super().finished()


def traced(exchange: Exchange | None) -> Trace | None:
    return exchange.trace if isinstance(exchange, TracedExchange) else None
