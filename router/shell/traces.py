"""The router's own spans, and their export by OpenTelemetry (OTLP over HTTP): what `otlp_endpoint` turns on.

A span a call of an endpoint, with those of its phases below it, in the trace that the caller's `traceparent` names.
They are sent in batches by a thread of the SDK's; when the collector is down or slow, spans are dropped, never calls.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.proxy.calls import Lease, Target
from torpor import __version__

PATH: Final = "/v1/traces"
CLOSE_WITHIN: Final = 3.0  # seconds that the last spans may take when the router ends
SAID_EVERY: Final = 60.0  # seconds between two lines about a collector that does not take spans
_PHASE: Final = re.compile(r"\s*([A-Za-z0-9_.-]{1,40});dur=([0-9.]{1,20})\s*")
_CONTEXT: Final = TraceContextTextMapPropagator()
_LOUD: Final = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class OtlpTraces:
    """Implements the proxy's `Traces`. `url`: the collector's, with or without the path of its traces.

    What the SDK reads of the environment holds too: OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and the like.
    `clock` is the proxy's, in seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        url = url.rstrip("/")
        exporter = OTLPSpanExporter(endpoint=url if url.endswith(PATH) else url + PATH)
        for name in _LOUD:
            logging.getLogger(name).addFilter(Seldom(SAID_EVERY, clock))
        resource = Resource.create({"service.name": "torpor", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("torpor.router", __version__)
        self._clock = clock

    def begin(self, target: Target, method: bytes, call: bytes, parents: list[bytes], started: float) -> OtlpTrace:
        """A caller who names no trace, or two, begins one."""
        carrier = {"traceparent": parents[0].partition(b":")[2].strip().decode("latin-1")} if len(parents) == 1 else {}
        named = method.decode()
        epoch = time.time_ns() - int(self._clock() * 1e9)
        span = self._tracer.start_span(
            f"{named} {target.endpoint}",
            _CONTEXT.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": named,
                "url.path": target.path.partition(b"?")[0].decode("latin-1"),
                "torpor.endpoint": target.endpoint,
                "torpor.request_id": call.decode("latin-1"),
            },
            start_time=epoch + int(started * 1e9),
        )
        return OtlpTrace(self._tracer, span, started, self._clock, epoch)

    async def close(self) -> None:
        """Sends what is still to be sent, for a few seconds at most."""
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, CLOSE_WITHIN)


class OtlpTrace:
    """Implements the proxy's `Trace`. Times are of the proxy's clock, in seconds; `epoch` makes them nanoseconds of
    the calendar's.
    """

    __slots__ = ("_clock", "_epoch", "_span", "_started", "_tracer", "traceparent")

    def __init__(self, tracer: Tracer, span: Span, started: float, clock: Callable[[], float], epoch: int) -> None:
        self._tracer = tracer
        self._span = span
        self._started = started
        self._clock = clock
        self._epoch = epoch
        context = span.get_span_context()
        self.traceparent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)

    def answered(self, status: int, lease: Lease | None, router: float, timing: bytes) -> None:
        if not self._span.is_recording():
            return
        now = self._clock()
        self._status(status)
        self._span.add_event("first byte", timestamp=self._at(now))
        if lease is None:
            return
        self._span.set_attributes(
            {"torpor.replica": lease.replica, "torpor.cold": lease.cold, "torpor.parked": lease.parked}
        )
        if lease.parked:
            self._waited(lease)
        forwarded = self._started + router
        phases = phases_of(timing)
        self._line(phases, max(forwarded, now - sum(seconds for _, seconds in phases)), None)

    def failed(self, status: int, code: str) -> None:
        if self._span.is_recording():
            self._status(status)
            self._span.set_attribute("error.type", code)

    def ended(self, why: str | None) -> None:
        if not self._span.is_recording():
            return
        if why is not None:
            self._span.set_attribute("error.type", why)
            self._span.set_status(Status(StatusCode.ERROR, why))
        self._span.end(self._at(self._clock()))

    def _status(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:  # the conventions for servers: a fault of the caller's is none of theirs
            self._span.set_status(Status(StatusCode.ERROR))

    def _waited(self, lease: Lease) -> None:
        """The time parked, and in it the phases of the start that it ended with."""
        granted = self._started + lease.parked
        park = self._child("park", self._started, granted, None)
        if lease.phases:
            phases = list(lease.phases.items())
            begun = granted - sum(seconds for _, seconds in phases)  # of an earlier caller, maybe before this one came
            start = self._child("start", begun, granted, park)
            self._line(phases, begun, start)

    def _line(self, phases: list[tuple[str, float]], begun: float, parent: Span | None) -> None:
        """Phases one after the other."""
        for phase, seconds in phases:
            self._child(phase, begun, begun + seconds, parent)
            begun += seconds

    def _child(self, name: str, begun: float, ended: float, parent: Span | None) -> Span:
        context = set_span_in_context(self._span if parent is None else parent)
        span = self._tracer.start_span(name, context, start_time=self._at(begun))
        span.end(self._at(ended))
        return span

    def _at(self, moment: float) -> int:
        return self._epoch + int(moment * 1e9)


class Seldom(logging.Filter):
    """Lets a line pass once in a while: who does not answer is told once a minute, and not once a batch."""

    def __init__(self, every: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self._every = every
        self._clock = clock
        self._again = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._again:
            return False
        self._again = now + self._every
        return True


def phases_of(timing: bytes) -> list[tuple[str, float]]:
    """The phases of a `Server-Timing`, in seconds; what is none is left out."""
    found = []
    for part in timing.decode("latin-1").split(","):
        match = _PHASE.fullmatch(part)
        if match is not None and match[2].count(".") <= 1 and match[2] != ".":
            found.append((match[1], float(match[2]) / 1000))
    return found
