"""A mounted application, its WebSocket, and what middleware and CORS add to every answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.system.differential.pair import Pair


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_mounted_application_sees_its_request(pair: Pair, method: str) -> None:
    body = {"content": b"body"} if method in ("POST", "PUT") else {}
    answer = pair.both(200, "mounted", method, "/chat/info?a=1&b=%20x", **body)
    assert json.loads(answer.body) == {
        "path": "/chat/info",
        "query": "a=1&b=%20x",
        "opened": True,  # its lifespan has run
        "body": "body" if body else "",
        "method": method,
    }
    assert (answer.header("x-own"), answer.header("x-stamp")) == ("mounted", "stamped")


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (200, "HEAD", "/chat/info"),
        (200, "GET", "/chat/ticks"),
        (405, "PATCH", "/chat/info"),
        (405, "OPTIONS", "/chat/info"),
        (404, "GET", "/chat"),
        (404, "GET", "/chat/"),
        (404, "GET", "/chat/none"),
        (404, "GET", "/chat/echo"),  # a WebSocket
        (307, "GET", "/chat/info/"),
        (404, "GET", "/none"),
        (404, "POST", "/none"),
        (405, "GET", "/hello"),
        (405, "HEAD", "/hello"),
        (405, "DELETE", "/"),
        (500, "GET", "/chat/breaks"),
    ],
)
def test_routes_around_a_mounted_application_answer_alike(pair: Pair, status: int, method: str, path: str) -> None:
    assert pair.both(status, "mounted", method, path).header("x-stamp") == "stamped"


def test_methods_beside_a_mounted_application_go_through_the_middleware(pair: Pair) -> None:
    answer = pair.call(200, "mounted", "hello", name="Ada")
    assert (json.loads(answer.body), answer.header("x-stamp")) == ({"hello": "Ada"}, "stamped")


def test_cors_is_answered_as_configured(pair: Pair) -> None:
    ours, theirs = {"origin": "https://a.example"}, {"origin": "https://b.example"}
    allowed = pair.both(200, "mounted", "POST", "/hello", json={}, headers=ours)
    assert allowed.header("access-control-allow-origin") == "https://a.example"
    assert pair.both(200, "mounted", "POST", "/hello", json={}, headers=theirs).header("vary") == "Origin"
    asked = {"access-control-request-method": "GET"}
    assert pair.both(200, "mounted", "OPTIONS", "/hello", headers=ours | asked).header("access-control-allow-methods")
    pair.both(400, "mounted", "OPTIONS", "/hello", headers=theirs | asked)
    pair.both(405, "mounted", "OPTIONS", "/hello")


def talk(pair: Pair, path: str, said: Callable[[ClientConnection], Any], **options: Any) -> Any:
    """What the same conversation yields on both sides, and what closed it."""

    def one(side: str) -> Any:
        with connect(pair.sides[side]["mounted"].replace("http", "ws", 1) + path, **options) as socket:
            heard = said(socket)
            return heard, socket.subprotocol

    stock, torpor = pair.on_both(one)
    assert torpor == stock
    return stock[0]


def closed(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as raised:
        socket.recv(timeout=10)
    frame = raised.value.rcvd
    return (frame.code, frame.reason) if frame else (1006, "the connection ended")


def test_a_websocket_carries_text_and_bytes_of_any_size(pair: Pair) -> None:
    def said(socket: ClientConnection) -> list[str | bytes]:
        heard = []
        for text in ("hi", "", "é" * 100_000, "bytes"):
            socket.send(text)
            heard.append(socket.recv(timeout=10))
        return heard

    assert talk(pair, "/chat/echo", said) == ["HI", "", "É" * 100_000, b"\x00\x01"]


def test_a_websocket_sent_in_fragments_is_one_message(pair: Pair) -> None:
    def said(socket: ClientConnection) -> str | bytes:
        socket.send(["a", "b", "c"])
        return socket.recv(timeout=10)

    assert talk(pair, "/chat/echo", said) == "ABC"


def test_a_websocket_closed_by_the_service_has_its_code_and_reason(pair: Pair) -> None:
    def said(socket: ClientConnection) -> tuple[int, str]:
        socket.send("close")
        return closed(socket)

    assert talk(pair, "/chat/echo", said) == (4001, "asked to")


def test_a_websocket_whose_service_breaks_is_closed_alike(pair: Pair) -> None:
    def said(socket: ClientConnection) -> tuple[int, str]:
        socket.send(b"not text")
        return closed(socket)

    assert talk(pair, "/chat/echo", said)[0] == 1006


def test_a_websocket_agrees_on_a_subprotocol(pair: Pair) -> None:
    def said(socket: ClientConnection) -> str | None:
        return socket.subprotocol

    assert talk(pair, "/chat/echo", said, subprotocols=["one"]) == "one"


def test_a_websocket_pings(pair: Pair) -> None:
    def said(socket: ClientConnection) -> bool:
        return socket.ping().wait(10)

    assert talk(pair, "/chat/echo", said) is True


@pytest.mark.parametrize("path", ["/chat/none", "/hello", "/none"])
def test_a_websocket_that_nothing_takes_is_refused_alike(pair: Pair, path: str) -> None:
    def refused(side: str) -> int:
        url = pair.sides[side]["mounted"].replace("http", "ws", 1) + path
        with pytest.raises(InvalidStatus) as raised, connect(url):
            pass
        return raised.value.response.status_code

    assert pair.on_both(refused) == [403, 403]
