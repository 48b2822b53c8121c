"""The short way of batched calls answers as the whole way does, which a body that comes in pieces takes."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.host.hosting import Gate, Host, Line, Replica, until

BATCHED = """
import os
import time
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PlainSerializer

def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("blank")
    return text

def wait(texts):
    for text in texts:
        if text.startswith("/"):
            Path(text + ".begun").touch()
            while not Path(text).exists():
                time.sleep(0.005)

Texts = Annotated[list[Annotated[str, AfterValidator(not_blank)]], Field(max_length=3)]
Joined = Annotated[NDArray[np.float64], PlainSerializer(lambda rows: "+".join(map(str, rows)))]

@bentoml.service
class Batched:
    @bentoml.api(batchable=True)
    def array(self, texts: Texts) -> NDArray[np.float32]:
        return np.array([[len(text) / 3, 1e-5] for text in texts], dtype=np.float32)

    @bentoml.api(batchable=True)
    async def lists(self, texts: list[str]) -> list[dict[str, Any]]:
        return [{"text": text, "nothing": None, "many": [1.5, float("nan")]} for text in texts]

    @bentoml.api(batchable=True)
    def root(self, texts: list[str], /) -> list[int]:
        return [len(text) for text in texts]

    @bentoml.api(batchable=True)
    def joined(self, texts: list[str]) -> Joined:
        return np.array([float(len(text)) for text in texts])

    @bentoml.api(batchable=True)
    def wrong(self, texts: list[str]) -> list[int]:
        return ["no number"] * len(texts)

    @bentoml.api(batchable=True)
    def breaks(self, texts: list[str]) -> list[str]:
        if "value" in texts:
            raise ValueError(texts)
        raise bentoml.exceptions.InvalidArgument("not these")

    @bentoml.api(batchable=True)
    def who(self, texts: list[str]) -> list[str]:
        wait(texts)
        return [Batched.context.request.headers.get("x-who", "nobody")] * len(texts)

    @bentoml.api(batchable=True)
    def leaves(self, texts: list[str]) -> list[str]:
        scratch = Path(Batched.context.temp_dir) / "scratch"
        scratch.touch()

        def after() -> None:
            wait(texts)
            Path(texts[0] + f".scratch-{scratch.exists()}").touch()

        Batched.context.response.background.add_task(after)
        if len(texts) > 1:
            raise ValueError("with work left behind")
        return [str(scratch)]

    @bentoml.api(batchable=True)
    def held(self, texts: list[str]) -> list[int]:
        wait(texts)
        return [len(texts)] * len(texts)
"""
OWN = re.compile(rb"(date|x-bentoml-request-id|server-timing): [^\r]*\r\n")


@pytest.fixture(scope="module")
def batched(host: Host) -> Replica:
    replica = host.fork("Batched", BATCHED)
    replica.ready()
    return replica


def answer(line: Line) -> bytes:
    """One answer, whole."""
    head, _, body = line.read(b"\r\n\r\n").partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None, head
    while len(body) < int(found[1]):
        body += line.socket.recv(65536)
    return head + b"\r\n\r\n" + body


def heard(replica: Replica) -> None:
    """Returns when the replica has read everything that was sent to it before."""
    assert replica.call("lists", texts=[]).status_code == 200  # of no thread, so that none is waited for


def in_pieces(replica: Replica, path: str, headers: list[tuple[str, str]], body: bytes) -> Line:
    line = Line(replica.address, path, [*headers, ("transfer-encoding", "chunked")], b"", ended=False)
    heard(replica)  # the head
    line.socket.sendall((b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n")
    return line


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", None])
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("array", b'{"texts": ["one", "three"]}'),
        ("array", b'{"texts": []}'),
        ("array", b'{"texts": ["a", " "]}'),
        ("array", b'{"texts": ["a", "b", "c", "d"]}'),
        ("array", b'{"text": ["a"]}'),
        ("array", b'{"texts": ['),
        ("array", b""),
        ("lists", '{"texts": ["a", "\u00e9"]}'.encode()),
        ("root", b'["a", "bcd"]'),
        ("root", b'{"texts": ["a"]}'),
        ("joined", b'{"texts": ["a", "bc"]}'),
        ("wrong", b'{"texts": ["a"]}'),
        ("breaks", b'{"texts": ["value"]}'),
        ("breaks", b'{"texts": ["argument"]}'),
        ("held", json.dumps({"texts": ["x" * 90_000]}).encode()),
    ],
)
def test_an_answer_is_that_of_the_whole_way(batched: Replica, kind: str | None, method: str, body: bytes) -> None:
    headers = [] if kind is None else [("content-type", kind)]
    short = answer(Line(batched.address, f"/{method}", headers, body))
    whole = answer(in_pieces(batched, f"/{method}", headers, body))
    assert OWN.sub(rb"\1\r\n", short) == OWN.sub(rb"\1\r\n", whole)


def test_a_line_is_used_again_and_calls_that_are_sent_at_once_are_answered_in_their_order(batched: Replica) -> None:
    line = batched.line("root", texts=["no root"])
    assert b" 400 " in answer(line)
    one, two = b'["a"]', b'["bc", "def"]'
    for body in (one, two, one):
        line.socket.sendall(b"POST /root HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    assert line.read(b"[2, 3]").count(b"HTTP/1.1 200 OK") == 2
    assert line.read(b"[1]").startswith(b"HTTP/1.1 200 OK")


def test_a_caller_who_asks_for_it_has_the_connection_closed(batched: Replica) -> None:
    rest = Line(batched.address, "/root", [("connection", "close")], b'["a"]').rest()
    assert b"\r\nconnection: close\r\n" in rest
    assert rest.endswith(b"[1]")


def test_a_batch_sees_the_request_of_its_first_call(batched: Replica, gate: Gate) -> None:
    def call(who: str, text: str) -> Line:
        return Line(batched.address, "/who", [("x-who", who)], json.dumps({"texts": [text]}).encode())

    first = call("one", str(gate))
    gate.begun()
    behind = [call("two", "a"), call("three", "b")]
    heard(batched)
    gate.open()
    assert [answer(line).rpartition(b"\r\n\r\n")[2] for line in (first, *behind)] == [
        b'["one"]',
        b'["two"]',
        b'["two"]',
    ]


@pytest.mark.parametrize(("more", "status"), [([], b" 200 "), (["b"], b" 500 ")])
def test_work_that_a_method_leaves_behind_is_done_behind_the_answer_with_its_files(
    batched: Replica, gate: Gate, tmp_path: Path, more: list[str], status: bytes
) -> None:
    line = batched.line("leaves", texts=[str(gate), *more])
    assert status in answer(line)
    gate.begun()
    assert batched.hear() == {"ev": "busy", "tasks": 1}
    line.leave()
    heard(batched)
    assert line.is_open()
    gate.open()
    assert line.rest() == b""
    assert batched.hear() == {"ev": "busy", "tasks": 0}
    until((tmp_path / "gate.scratch-True").exists)


def test_a_stop_waits_for_the_calls_of_all_batches(host: Host, gate: Gate) -> None:
    replica = host.fork("Batched", BATCHED)
    replica.ready()
    first = replica.line("held", texts=[str(gate)])
    gate.begun()
    second = replica.line("held", texts=["a", "b"])
    heard(replica)
    replica.terminate()
    gate.open()
    for line, told in ((first, b"[1]"), (second, b"[2, 2]")):
        rest = line.rest()
        assert b"\r\nconnection: close\r\n" in rest
        assert rest.endswith(told)
    assert replica.exited() == 0


def test_uvicorn_still_starts_a_call_where_the_line_takes_it() -> None:
    """Where it does not, all calls go the whole way, and nothing but their time tells."""
    assert "self._start_asgi_task(" in inspect.getsource(HttpToolsProtocol.on_headers_complete)
