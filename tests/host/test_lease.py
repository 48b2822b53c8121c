"""The two rules that make a lease honest (docs/protocols.md): the connection is closed when the work has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.hosting import Gate, Host, Line, Replica

MOUNTED = """
import bentoml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def breaks(request):
    raise ValueError("in the application")

async def works(request):
    return PlainTextResponse("fine")

app = Starlette(routes=[Route("/breaks", breaks, methods=["POST"]), Route("/works", works, methods=["POST"])])

@bentoml.service
@bentoml.asgi_app(app, path="/app")
class Mounted:
    pass
"""
LATE = b"HTTP/1.1 504 Gateway Timeout\r\n"
BODY = b'{"error":"Not able to process the request in 1.0 seconds"}'


def heard(replica: Replica) -> None:
    """Returns when the replica has read everything that was sent to it before."""
    assert replica.call("process").status_code == 200


def upload(replica: Replica, gate: Gate) -> Line:
    """A call outside of the lean lane."""
    parts = [
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n',
        f'--x\r\ncontent-disposition: form-data; name="gate"\r\n\r\n{gate}\r\n--x--\r\n'.encode(),
    ]
    headers = [("content-type", "multipart/form-data; boundary=x")]
    return Line(replica.address, "/upload", headers, b"".join(parts))


def begin(replica: Replica, method: str, gate: Gate) -> Line:
    if method == "upload":
        line = upload(replica, gate)
    elif method == "batch":
        line = replica.line("batch", texts=[str(gate)])
    else:
        line = replica.line(method, gate=str(gate))
    gate.begun()
    return line


METHODS = ["hold", "stubborn", "batch", "upload"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_whose_caller_left_finishes_and_then_the_line_is_closed(
    patient: Replica, gate: Gate, method: str
) -> None:
    line = begin(patient, method, gate)
    line.leave()
    heard(patient)
    assert line.is_open()
    gate.open()
    assert line.rest() == b""  # nobody is there to read an answer
    assert gate.done


def test_a_stream_whose_caller_left_is_cancelled(patient: Replica, gate: Gate) -> None:
    line = patient.line("endless", gate=str(gate))
    line.read(b"begun")
    line.leave()
    line.rest()
    assert gate.path.with_name("stream.over").exists()


def test_a_stream_that_works_in_a_thread_keeps_its_line_until_that_has_ended(patient: Replica, gate: Gate) -> None:
    line = patient.line("pieces", gate=str(gate))
    line.read(b"begun")
    gate.begun()
    line.leave()
    heard(patient)
    assert line.is_open()
    gate.open()
    assert line.rest() == b""
    assert gate.done


def test_an_idle_line_whose_router_left_is_closed_at_once(patient: Replica) -> None:
    line = patient.line("process")
    line.read(b"}")
    line.leave()
    assert line.rest() == b""


def test_a_caller_who_left_in_the_middle_of_a_body_frees_the_line(patient: Replica) -> None:
    line = Line(patient.address, "/process", [("x-more", "1")], b"")
    line.read(b"}")
    line.socket.sendall(b"POST /process HTTP/1.1\r\nhost: replica\r\ncontent-length: 100\r\n\r\n{")
    line.leave()
    line.rest()


def test_a_late_answer_is_sent_at_once_and_its_line_closed_when_the_method_has_ended(
    hurried: Replica, tmp_path: Path
) -> None:
    gates = {method: Gate(tmp_path / method) for method in METHODS}
    lines = {method: begin(hurried, method, gate) for method, gate in gates.items()}
    for line in lines.values():
        head, _, body = line.read(BODY).partition(b"\r\n\r\n")
        assert head.startswith(LATE.rstrip())
        assert b"connection: close" in head.lower().split(b"\r\n")
        assert body == BODY
    heard(hurried)
    assert [method for method, line in lines.items() if not line.is_open()] == []
    assert [method for method, gate in gates.items() if gate.done] == []
    for method, gate in gates.items():
        gate.open()
        lines[method].rest()
        assert gate.done


def test_a_late_call_that_waits_for_another_batch_is_not_run_and_its_line_is_free_at_once(
    hurried: Replica, gate: Gate, tmp_path: Path
) -> None:
    first = begin(hurried, "batch", gate)
    never = Gate(tmp_path / "never")
    second = hurried.line("batch", texts=[str(never)])
    assert second.rest().startswith(LATE)  # and closed, while the first batch still runs
    assert not gate.done
    gate.open()
    first.rest()
    heard(hurried)
    assert hurried.call("batch", texts=["a"]).json() == [1]
    assert not never.path.with_name("never.begun").exists()


def test_every_call_of_a_late_batch_holds_its_line_until_the_batch_has_ended(
    hurried: Replica, gate: Gate, tmp_path: Path
) -> None:
    before = Gate(tmp_path / "before")
    first = begin(hurried, "batch", before)
    both = [hurried.line("batch", texts=[str(gate)]), hurried.line("batch", texts=["a"])]
    heard(hurried)
    before.open()
    first.read(b"[1]")
    gate.begun()  # the second batch: both calls
    for line in both:
        line.read(BODY)
    heard(hurried)
    assert [line.is_open() for line in both] == [True, True]
    gate.open()
    for line in both:
        line.rest()
    assert gate.done


def test_an_application_that_raises_after_its_answer_keeps_the_line(host: Host) -> None:
    """The router has the line in its pool by then, and may have sent the next call on it."""
    replica = host.fork("Mounted", MOUNTED)
    replica.ready()
    line = Line(replica.address, "/app/breaks", [], b"")
    assert line.read(b"\r\n\r\nInternal Server Error").startswith(b"HTTP/1.1 500 ")
    line.socket.sendall(b"POST /app/works HTTP/1.1\r\nhost: replica\r\ncontent-length: 0\r\n\r\n")
    assert line.read(b"fine").startswith(b"HTTP/1.1 200 ")
    assert "ValueError: in the application" in replica.log.read_text()
    replica.terminate()
    assert replica.exited() == 0
