"""What a method sees of its call, and what it says beside its result."""

from __future__ import annotations

import json

from tests.system.differential.pair import Pair, until


def test_headers_cookies_and_status_of_the_context_reach_the_answer(pair: Pair) -> None:
    sent = {"x-sent": "yes", "cookie": "c=d"}
    answer = pair.both(202, "wide", "POST", "/context?q=1&q=2", json={"a": "z"}, headers=sent)
    assert json.loads(answer.body) == {
        "method": "POST",
        "sent": "yes",
        "cookie": "d",
        "query": {"q": "2"},
        "type": "application/json",
    }
    assert (answer.header("x-own"), answer.header("cache-control")) == ("own-z", "no-store")
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    assert [cookie.partition(";")[0] for cookie in cookies] == ["one=1", "two=2"]


def test_one_call_leaves_nothing_to_the_next(pair: Pair) -> None:
    pair.both(202, "wide", "POST", "/context", json={})
    assert pair.call(200, "wide", "add", a=1).header("x-own") is None


def test_state_is_kept_between_calls(pair: Pair) -> None:
    first = json.loads(pair.call(200, "wide", "state").body)
    assert json.loads(pair.call(200, "wide", "state").body) == first + 1


def test_a_service_knows_as_what_it_is_served(pair: Pair) -> None:
    assert pair.call(200, "wide", "context_unasked").body == b"entry_service"
    served = json.loads(pair.call(200, "wide", "served_as").body)
    assert (served["type"], served["service"]) == ("entry_service", "Wide")
    assert "/deep/er" in served["routes"]


def test_responses_of_the_methods_own_are_sent_as_they_are(pair: Pair) -> None:
    assert pair.call(203, "wide", "own_response").header("x-own") == "yes"
    events = pair.call(200, "wide", "own_events")
    assert events.header("content-type") == "text/event-stream; charset=utf-8"
    stream = pair.call(200, "wide", "own_stream")
    assert (stream.body, stream.header("x-own")) == (b"ab", "stream")
    assert stream.header("content-type") == "text/x-own; charset=utf-8"


def test_work_behind_the_answer_is_done(pair: Pair) -> None:
    def grown(side: str) -> int:
        return int(pair.send(side, "wide", "POST", "/grown", json={}).json())

    before = pair.on_both(grown)
    assert pair.call(200, "wide", "own_response_after").body == b"done"
    until(lambda: pair.on_both(grown) == [count + 1 for count in before])
