"""Generators: text, server-sent events, and errors before and after the first piece."""

from __future__ import annotations

import pytest

from tests.system.differential.pair import Pair


@pytest.mark.parametrize(
    ("method", "body", "media_type"),
    [
        ("count_up", b"0\n1\n2\n", "text/event-stream; charset=utf-8"),
        ("events", b"data: 0\n\ndata: 1\n\ndata: 2\n\n", "text/event-stream"),
        ("models", b'{"name":"a","age":7,"tags":[]}{"name":"b","age":7,"tags":[]}', "text/event-stream; charset=utf-8"),
        ("typed_stream", b"a,b", "text/event-stream; charset=utf-8"),
        ("empty_stream", b"", "text/event-stream; charset=utf-8"),
        ("breaks_midway", b"begun", "text/event-stream; charset=utf-8"),
    ],
)
def test_streams_are_alike(pair: Pair, method: str, body: bytes, media_type: str) -> None:
    answer = pair.call(200, "wide", method)
    assert (answer.body, answer.header("content-type")) == (body, media_type)


def test_a_generator_that_raises_at_once_is_500(pair: Pair) -> None:
    pair.call(500, "wide", "breaks_at_once")
    pair.call(500, "wide", "breaks_at_once_in_a_thread")


def test_headers_set_before_the_first_piece_are_sent(pair: Pair) -> None:
    assert pair.call(200, "wide", "stream_with_context").header("x-own") == "late"


def test_pieces_arrive_as_they_are_made_also_past_the_deadline(pair: Pair) -> None:
    """The stream pauses for half a second behind each piece, where one that is kept back would come in one piece.

    It begins before the service's deadline, a second, and ends after it.
    """

    def pieces(side: str) -> list[str]:
        url = pair.sides[side]["hurried"] + "/v9/slow_stream"
        with pair.http.stream("POST", url, json={}) as answer:
            return list(answer.iter_text())

    assert pair.on_both(pieces) == [["0", "1", "2"], ["0", "1", "2"]]
