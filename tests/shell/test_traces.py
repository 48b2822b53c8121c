"""The router's own spans, as a collector gets them, and the traceparent that a replica gets."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from router.proxy.limits import Limits
from router.shell.collector import traces_of
from router.shell.traces import OtlpTraces, Seldom, phases_of
from tests.collector import Collector, attributes, collecting, seconds
from tests.shell.fakes.wire import Line, Script, Stage, play, stage, until
from tests.system.running import free_port
from torpor.errors import InvalidConfig, QueueFull

GET = b"GET /endpoints/e/x?secret=1 HTTP/1.1\r\nHost: t\r\n\r\n"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


def asked(*lines: str, body: bytes = b"") -> bytes:
    head = ["POST /endpoints/e/x HTTP/1.1", "Host: t", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def traced(scenario: Callable[[Stage], Awaitable[None]], script: Script | None = None, **limits: float) -> Collector:
    """What a collector has got once the scenario is over."""

    async def played() -> None:
        traces = OtlpTraces(collector.url)
        async with stage(script, Limits(**limits), traces) as on:  # type: ignore[arg-type]  # seconds
            await scenario(on)
        await traces.close()

    with collecting() as collector:
        play(played)
    return collector


def of(span: Span, name: str) -> object:
    return attributes(span).get(name)


def test_a_call_is_a_span_in_its_callers_trace_and_the_replicas_parent() -> None:
    sent: list[str] = []

    async def script(line: Line) -> None:
        sent.append((await line.message()).headers["traceparent"])
        timing = b"Server-Timing: queue;dur=1.5, infer;dur=2.5"
        await line.send(b"HTTP/1.1 201 Made\r\nContent-Length: 0\r\n%b\r\n\r\n" % timing)

    async def scenario(on: Stage) -> None:
        answer = await on.ask(asked(f"TraceParent: {SAMPLED}", "tracestate: a=1", "X-Request-Id: r1", body=b"hello"))
        assert answer.status == 201

    collector = traced(scenario, script)
    [span] = collector.server()
    assert collector.paths == {"/v1/traces"}
    assert collector.resource["service.name"] == "torpor"
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("POST e", TRACE, PARENT)
    assert sent == [f"00-{TRACE}-{span.span_id.hex()}-01"]
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "url.path": "/x",
        "torpor.endpoint": "e",
        "torpor.request_id": "r1",
        "torpor.replica": "e-1",
        "torpor.cold": False,
        "torpor.parked": 0.0,
    }
    assert [event.name for event in span.events] == ["first byte"]
    phases = collector.below(span)
    assert {name: round(seconds(phase), 6) for name, phase in phases.items()} == {"queue": 0.0015, "infer": 0.0025}
    assert phases["queue"].end_time_unix_nano == phases["infer"].start_time_unix_nano
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_a_cold_call_shows_its_waiting_and_the_phases_of_the_start() -> None:
    async def scenario(on: Stage) -> None:
        on.calls.cold, on.calls.parked, on.calls.phases = True, 7.0, {"fork": 1.0, "load": 2.0}
        assert (await on.ask(GET)).status == 200

    collector = traced(scenario)
    [span] = collector.server()
    assert (of(span, "torpor.cold"), of(span, "torpor.parked"), of(span, "url.path")) == (True, 7.0, "/x")
    park = collector.below(span)["park"]
    start = collector.below(park)["start"]
    assert [round(seconds(each), 6) for each in (park, start)] == [7.0, 3.0]
    assert park.start_time_unix_nano == span.start_time_unix_nano
    assert start.end_time_unix_nano == pytest.approx(park.end_time_unix_nano, abs=1000)
    assert {name: round(seconds(each), 6) for name, each in collector.below(start).items()} == {"fork": 1, "load": 2}


def test_a_caller_without_a_trace_or_with_two_or_a_broken_one_begins_one() -> None:
    sent: list[list[bytes]] = []

    async def script(line: Line) -> None:
        for _ in range(3):
            got = await line.message()
            sent.append([each for each in got.lines if each.lower().startswith(b"traceparent")])
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def scenario(on: Stage) -> None:
        line = await on.caller()
        for lines in ([], [f"traceparent: {SAMPLED}"] * 2, ["traceparent: nonsense"]):
            await line.send(asked(*lines))
            await line.message()

    spans = traced(scenario, script).server()
    assert [span.parent_span_id for span in spans] == [b""] * 3
    assert len({span.trace_id for span in spans}) == 3
    for [got], span in zip(sent, spans, strict=True):
        assert got[:-2].decode() == f"traceparent: 00-{span.trace_id.hex()}-{span.span_id.hex()}-"
        assert int(got[-2:], 16) & 1, "it is sampled"


def test_a_trace_that_is_not_sampled_goes_on_and_is_not_exported() -> None:
    async def scenario(on: Stage) -> None:
        await on.ask(asked(f"traceparent: 00-{TRACE}-{PARENT}-00"))
        [got] = on.upstream.requests
        version, trace, parent, flags = got.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "00")
        assert parent != "0" * 16

    assert traced(scenario).spans == []


def test_a_body_that_comes_in_pieces_reaches_the_replica_whole() -> None:
    async def scenario(on: Stage) -> None:
        line = await on.caller()
        await line.send(b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n")
        await until(lambda: bool(on.upstream.lines))
        await line.send(b"3\r\nabc\r\n0\r\n\r\n")
        assert (await line.message()).body == b"\r\nabc"
        await line.send(asked(f"traceparent: {SAMPLED}", body=b"a\r\n\r\nb"))
        assert (await line.message()).body == b"a\r\n\r\nb"

    assert len(traced(scenario).server()) == 2


def test_a_refused_call_names_the_error_and_a_lost_one_is_an_error() -> None:
    async def script(line: Line) -> None:
        await line.message()

    async def scenario(on: Stage) -> None:
        on.calls.refusal = QueueFull("full\nlater")
        assert (await on.ask(GET)).status == 429
        on.calls.refusal = None
        assert (await on.ask(asked(body=b"x"))).status == 502

    refused, died = traced(scenario, script).server()
    assert (of(refused, "http.response.status_code"), of(refused, "error.type")) == (429, "queue_full")
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert (of(died, "http.response.status_code"), of(died, "error.type")) == (502, "replica_died")
    assert died.status.code == Status.STATUS_CODE_ERROR


@pytest.mark.parametrize("phase", ["parked", "forwarded", "streaming"])
def test_a_caller_who_leaves_ends_the_span(phase: str) -> None:
    async def script(line: Line) -> None:
        await line.head()
        if phase == "streaming":
            await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await line.reader.read()

    async def scenario(on: Stage) -> None:
        if phase == "parked":
            on.calls.hold()
        line = await on.caller()
        await line.send(GET)
        await until(lambda: bool(on.calls.waiting if phase == "parked" else on.upstream.lines))
        if phase == "streaming":
            await line.head()
        line.abort()
        await until(lambda: not on.proxy._callers)

    [span] = traced(scenario, script).server()
    assert of(span, "error.type") == "caller_left"
    assert of(span, "http.response.status_code") == (200 if phase == "streaming" else None)


def test_an_answer_that_breaks_off_is_an_error() -> None:
    async def script(line: Line) -> None:
        await line.head()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    async def scenario(on: Stage) -> None:
        line = await on.caller()
        await line.send(GET)
        await line.head()
        await line.reader.read()

    [span] = traced(scenario, script).server()
    assert (of(span, "error.type"), span.status.code) == ("broken", Status.STATUS_CODE_ERROR)


def test_an_event_stream_that_was_told_of_its_waiting_is_one_span() -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n")

    async def scenario(on: Stage) -> None:
        on.calls.hold()
        line = await on.caller()
        await line.send(b"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n")
        await line.reader.readuntil(b": waking\n\n")
        on.calls.release()
        await line.reader.readuntil(b"0\r\n\r\n")

    [span] = traced(scenario, script, waking_every=0.05).server()
    assert (of(span, "http.response.status_code"), of(span, "torpor.replica")) == (200, "e-1")


def test_what_is_no_call_of_an_endpoint_has_no_span() -> None:
    async def scenario(on: Stage) -> None:
        assert (await on.ask(b"GET /torpor HTTP/1.1\r\nHost: t\r\n\r\n")).status == 200
        assert (await on.ask(b"GET /endpoints/none/x HTTP/1.1\r\nHost: t\r\n\r\n")).status == 404

    assert traced(scenario).spans == []


def test_a_collector_that_is_down_costs_no_call_anything_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def played() -> None:
        traces = OtlpTraces(f"http://127.0.0.1:{free_port()}/v1/traces")
        async with stage(traces=traces) as on:
            for _ in range(600):  # more than a batch
                assert (await on.ask(GET)).status == 200
        async with asyncio.timeout(10):
            await traces.close()

    with caplog.at_level(logging.WARNING):
        play(played)
    said = [record.message for record in caplog.records if record.name.startswith("opentelemetry.exporter")]
    assert len(said) == 1, said


def test_a_line_passes_once_in_a_while() -> None:
    times = iter((1.0, 2.0, 60.9, 61.0, 62.0))
    seldom = Seldom(60.0, lambda: next(times))
    record = logging.LogRecord("x", logging.WARNING, "", 0, "down", None, None)
    assert [seldom.filter(record) for _ in range(5)] == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("timing", "phases"),
    [
        (b"", []),
        (b"infer;dur=2.5", [("infer", 0.0025)]),
        (b'queue;dur=1, infer;desc="x";dur=3, cache, a;dur=., b;dur=1.2.3', [("queue", 0.001)]),
    ],
)
def test_phases_are_read_of_what_a_replica_says_of_its_time(timing: bytes, phases: list[tuple[str, float]]) -> None:
    assert phases_of(timing) == phases


def test_nothing_is_imported_where_nobody_asked_for_spans() -> None:
    program = "import router.build, sys; print([n for n in sys.modules if n.startswith('opentelemetry.exporter')])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_collector_without_the_extra_is_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.delitem(sys.modules, "router.shell.traces")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InvalidConfig, match=rf"needs the package {missing}, .*\n.*pip install 'torpor\[otel\]'"):
        traces_of("http://127.0.0.1:4318")
