"""`torpor.MockTransport`, as users' tests use it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from torpor import AsyncClient, Client, MockTransport, TorporError
from torpor.errors import BadRequest, CallFailed, EndpointNotFound, QueueFull, RateLimited


def embed(texts: list[str], scale: float = 1.0) -> Any:
    return np.full((len(texts), 2), scale, dtype=np.float32)


def words(text: str) -> Iterator[str]:
    yield from text.split()


def octets() -> Iterator[bytes]:
    yield b"\xff"
    yield b"\x00"


@pytest.fixture
def mock() -> MockTransport:
    def full(**rest: Any) -> None:
        raise QueueFull("full\nwait", retry_after=0.1)

    def broken() -> None:
        raise CallFailed("its own", status=418)

    other: dict[str, Callable[..., Any]] = {
        "words": words,
        "octets": octets,
        "full": full,
        "broken": broken,
        "join": lambda parts, title="": (title.encode(), parts),
        "echo": lambda value, /: value,
        "spread": lambda first, *args, **kwargs: [first, list(args), kwargs],
        "defect": lambda: 1 / 0,
    }
    return MockTransport({"embedder": {"embed": embed, "size": lambda: 2}, "other": other})


@pytest.fixture
def client(mock: MockTransport) -> Client:
    return Client(transport=mock)


def test_a_function_answers_as_its_endpoint_would_and_its_arguments_are_kept(
    client: Client, mock: MockTransport
) -> None:
    vectors = client.endpoint("embedder").embed(["a", "b"], scale=3)
    assert (vectors.dtype, vectors.tolist()) == (np.float32, [[3, 3], [3, 3]])
    assert client.endpoint("embedder").size() == 2
    assert mock.calls == [("embedder", "embed", {"texts": ["a", "b"], "scale": 3}), ("embedder", "size", {})]


def test_arguments_are_checked_by_the_functions_signature(client: Client, mock: MockTransport) -> None:
    with pytest.raises(BadRequest, match="missing: texts"):
        client.endpoint("embedder").embed()
    with pytest.raises(BadRequest, match="unknown: text\nembed takes texts, scale"):
        client.endpoint("embedder").embed(texts=[], text="a")
    with pytest.raises(BadRequest, match="no method 'embd'"):
        client.endpoint("embedder").embd()
    assert mock.calls == []


def test_streams_files_and_whole_bodies(client: Client, tmp_path: Path) -> None:
    other = client.endpoint("other")
    assert list(other.words("a b")) == ["a", "b"]
    assert b"".join(other.octets()) == b"\xff\x00"
    (tmp_path / "a").write_bytes(b"\r\n--a\xff")
    with pytest.raises(BadRequest, match="not UTF-8"):
        other.echo({"bytes": b"\xff"})
    title, parts = "t", [tmp_path / "a", b"b"]
    assert other.echo(b"\xff") == b"\xff"
    assert other.echo({"a": 1}) == {"a": 1}
    assert other.echo("text") == "text"
    assert other.spread(1, 2, 3, a=4) == [1, [2, 3], {"a": 4}]
    seen: list[Any] = []
    kept = MockTransport({"files": {"join": lambda parts, title: seen.append((parts, title))}})
    Client(transport=kept).endpoint("files").join(parts=parts, title=title)
    Client(transport=kept).endpoint("files").join(parts=io.BytesIO(b"one"), title="123")
    assert seen == [([b"\r\n--a\xff", b"b"], "t"), (b"one", "123")]


def test_errors_are_raised_again_as_their_class_and_defects_go_through(client: Client, mock: MockTransport) -> None:
    with pytest.raises(CallFailed, match="its own") as raised:
        client.endpoint("other").broken()
    assert raised.value.status == 418
    with pytest.raises(QueueFull):
        client.endpoint("other", answer_within=0.5).full(a=1)
    with pytest.raises(ZeroDivisionError):
        client.endpoint("other").defect()
    with pytest.raises(EndpointNotFound, match="embedder"):
        client.endpoint("nosuch").embed()


def test_what_said_try_later_is_called_again(mock: MockTransport) -> None:
    often = RateLimited("too often\nwait", retry_after=0, detail={"limit": "rate"})
    answers: list[int | TorporError] = [QueueFull("full\nwait", retry_after=0), QueueFull("full\nwait"), often, 3]

    def busy() -> int:
        answer = answers.pop(0)
        if isinstance(answer, TorporError):
            raise answer
        return answer

    client = Client(transport=MockTransport({"busy": {"call": busy}}))
    assert client.endpoint("busy").call("call") == 3
    assert answers == []


def test_a_day_whose_calls_are_over_is_not_waited_out() -> None:
    asked: list[int] = []

    def spent() -> int:
        asked.append(1)
        raise RateLimited("over\ncome back tomorrow", retry_after=1, detail={"limit": "quota"})

    client = Client(transport=MockTransport({"spent": {"call": spent}}))
    with pytest.raises(RateLimited, match="tomorrow") as raised:
        client.endpoint("spent").call("call")
    assert (raised.value.retry_after, asked) == (1.0, [1])


def test_endpoints_are_listed_sleep_wake_and_are_deleted(client: Client) -> None:
    assert [view["name"] for view in client.list()] == ["embedder", "other"]
    assert client.sleep("embedder")["state"] == "asleep"
    client.endpoint("embedder").size()
    view = client.get("embedder")
    assert (view["state"], view["calls"], view["cold_starts"]) == ("awake", 1, 1)
    assert client.wake("other")["state"] == "awake"
    assert list(client.logs("other")) == []
    assert client.status()["endpoints"] == 2
    assert client.delete("other")["name"] == "other"
    assert [view["name"] for view in client.list()] == ["embedder"]


def test_a_deploy_is_told_to_be_beyond_a_mock(mock: MockTransport) -> None:
    answer = httpx.Client(transport=mock).put("http://mock/torpor/v1/bentos/name/version", content=b"")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "is not mocked" in answer.json()["error"]


def test_the_async_client_takes_the_same_transport(mock: MockTransport) -> None:
    async def calls() -> None:
        async with AsyncClient(transport=mock) as client:
            vectors = await client.endpoint("embedder").embed(texts=["a"])
            assert vectors.shape == (1, 2)
            assert [chunk async for chunk in await client.endpoint("other").words("a b")] == ["a", "b"]
            assert [view["name"] for view in await client.list()] == ["embedder", "other"]

    asyncio.run(calls())
