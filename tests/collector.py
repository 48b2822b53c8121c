"""A collector of OpenTelemetry spans: an HTTP server on the loopback address that keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """`url` is what `otlp_endpoint` names."""

    url: str = ""
    paths: set[str] = field(default_factory=set)
    resource: dict[str, object] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    def take(self, path: str, body: bytes) -> bytes:
        self.paths.add(path)
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource |= {each.key: value(each.value) for each in batch.resource.attributes}
            for scope in batch.scope_spans:
                self.spans.extend(scope.spans)
        return bytes(ExportTraceServiceResponse().SerializeToString())

    def server(self) -> list[Span]:
        """The spans of calls, in the order in which these came."""
        return sorted((s for s in self.spans if s.kind == Span.SPAN_KIND_SERVER), key=lambda s: s.start_time_unix_nano)

    def below(self, span: Span) -> dict[str, Span]:
        return {each.name: each for each in self.spans if each.parent_span_id == span.span_id}


def value(of: AnyValue) -> object:
    return getattr(of, of.WhichOneof("value") or "string_value")


def attributes(span: Span) -> dict[str, object]:
    return {each.key: value(each.value) for each in span.attributes}


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer = collector.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
