"""The clients against a real platform: arguments in, values out, streams, files, the control plane."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.system.running import Running
from torpor import AsyncClient, Client
from torpor.errors import BadRequest, CallFailed, EndpointNotFound


@pytest.fixture
def client(platform: Running) -> Iterator[Client]:
    with Client(platform.url, answer_within=60) as each:
        yield each


def test_arrays_go_in_and_come_out_as_arrays_of_their_dtype(client: Client) -> None:
    deployed = client.endpoint("deployed")
    out = deployed.scaled(np.array([[1, 2], [3, np.nan]], dtype=np.float32), scale=np.float64(2))
    assert (out.dtype, out.shape) == (np.float32, (2, 2))
    assert np.array_equal(out, np.array([[2, 4], [6, np.nan]], dtype=np.float32), equal_nan=True)
    assert deployed.total(np.arange(5)) == 10
    assert deployed.scaled(values=[1, 2]).tolist() == [1.0, 2.0]


def test_text_and_bytes_come_back_as_they_went(client: Client) -> None:
    deployed = client.endpoint("deployed")
    assert deployed.shout("größe") == "GRÖSSE"
    assert deployed.backwards(b"\xff\x00\x80") == b"\x80\x00\xff"


def test_files_are_paths_bytes_or_open_files(client: Client, tmp_path: Path) -> None:
    deployed = client.endpoint("deployed")
    path = tmp_path / "one"
    path.write_bytes(b'{"a": ')
    with path.open("rb") as opened:
        opened.read(3)  # it is sent from its start all the same
        assert deployed.join(parts=[opened, b"1}"]) == b'{"a": 1}'  # bytes, though its media type is JSON
    assert deployed.join(parts=[path]) == b'{"a": '
    assert deployed.named(io.StringIO("text"), "123") == "123: text"  # a text field stays text
    large = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(large)
    expected = {"size": len(large), "sha256": hashlib.sha256(large).hexdigest()}
    for source in (tmp_path / "large", str(tmp_path / "large"), large, io.BytesIO(large)):
        assert deployed.digest(source) == expected


def test_chunks_come_while_the_stream_goes_on(client: Client) -> None:
    deployed = client.endpoint("deployed")
    words = deployed.words("one two", pause=600)
    assert next(words) == "one "  # the second is ten minutes away
    words.close()
    assert "".join(deployed.words(text="a b")) == "a b "
    assert b"".join(deployed.octets(upto=200)) == bytes(range(200))  # bytes, though its media type says text


def test_a_call_and_a_stream_wake_a_sleeping_endpoint(client: Client) -> None:
    deployed = client.endpoint("deployed")
    before = client.get("deployed")["cold_starts"]
    assert client.sleep("deployed", force=True)["state"] == "asleep"
    assert deployed.shout("a") == "A"
    assert client.sleep("deployed", force=True)["state"] == "asleep"
    assert list(deployed.words("a")) == ["a "]
    assert client.get("deployed")["cold_starts"] == before + 2


def test_arguments_that_a_method_does_not_take_are_refused_before_they_are_sent(client: Client) -> None:
    deployed = client.endpoint("deployed")
    before = client.get("deployed")["calls"]
    calls: dict[str, Callable[[], Any]] = {
        "unknown: valeus": lambda: deployed.scaled(valeus=[1]),
        "missing: values": lambda: deployed.scaled(scale=2),
        "given twice: values": lambda: deployed.scaled([1], values=[1]),
        "3 positional arguments": lambda: deployed.scaled([1], 2, 3),
        "exactly one positional": lambda: deployed.total(),
        "no method 'scale'": lambda: deployed.scale([1]),
        "not a file": lambda: deployed.digest("/nowhere"),
        "cannot be sent as a file": lambda: deployed.digest(3),
        "cannot be sent as JSON": lambda: deployed.scaled(object()),
        "not UTF-8": lambda: deployed.words(b"\xff"),
    }
    for message, call in calls.items():
        with pytest.raises(BadRequest, match=message):
            call()
    assert client.get("deployed")["calls"] == before


def test_keyword_arguments_without_a_name_of_their_own_reach_kwargs(client: Client) -> None:
    assert client.endpoint("deployed").rest(1, second=2) == {"first": 1, "second": 2}


def test_an_endpoints_own_refusal_keeps_its_status_and_says_the_place(client: Client) -> None:
    deployed = client.endpoint("deployed")
    with pytest.raises(CallFailed, match="short and stout") as raised:
        deployed.status(418)
    assert raised.value.status == 418
    with pytest.raises(CallFailed, match=r"seconds: Input should be a valid number") as raised:
        deployed.wait("soon")
    assert raised.value.status == 400


def test_endpoints_are_listed_woken_put_to_sleep_and_their_logs_followed(client: Client) -> None:
    assert [view["name"] for view in client.list()] == ["deployed"]
    assert client.status()["endpoints"] == 1
    client.sleep("deployed", force=True)
    following = client.logs("deployed", tail=1, follow=True)
    assert " " in next(following)
    (replica,) = client.wake("deployed")["replicas"]
    assert replica["state"] == "ready"
    assert next(following) == f"{replica['id']} started"
    following.close()
    assert f"{replica['id']} started" in list(client.logs("deployed", tail=5))


def test_a_method_that_a_later_revision_adds_is_found(client: Client, tmp_path: Path) -> None:
    service = "import bentoml\n\n@bentoml.service\nclass Two:\n"
    method = "    @bentoml.api\n    def {0}(self) -> str:\n        return '{0}'\n"
    (tmp_path / "service.py").write_text(service + method.format("one"))
    told: list[str] = []
    first = client.deploy(tmp_path, "two", env={"A": "b"}, settings={"idle_after": 7}, tell=lambda p, d: told.append(p))
    assert (first["revision"], first["settings"]["idle_after"]) == (1, 7)
    assert told[:2] == ["building", "uploading"]
    assert told[-1] == "starting"
    two = client.endpoint("two")
    assert two.one() == "one"
    (tmp_path / "service.py").write_text(service + method.format("one") + method.format("more"))
    assert client.deploy(str(tmp_path), "two")["revision"] == 2
    assert two.more() == "more"
    assert client.delete("two")["name"] == "two"
    with pytest.raises(EndpointNotFound):
        client.get("two")


def test_the_async_client_does_the_same_and_many_calls_at_once(platform: Running, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"part")

    async def all_of_it() -> None:
        async with AsyncClient(platform.url, answer_within=60) as client:
            deployed = client.endpoint("deployed")
            sums = await asyncio.gather(*(deployed.total([number, 1]) for number in range(150)))
            assert sums == list(range(1, 151))
            assert (await deployed.scaled(np.ones(2, dtype=np.float32), scale=3)).tolist() == [3, 3]
            assert await deployed.join(parts=[tmp_path / "part", b"!"]) == b"part!"
            assert (await deployed.digest(tmp_path / "part"))["size"] == 4
            assert [chunk async for chunk in await deployed.words("a")] == ["a "]
            await client.sleep("deployed", force=True)
            assert await deployed.shout("cold") == "COLD"
            assert [line async for line in client.logs("deployed", tail=1)]
            with pytest.raises(CallFailed):
                await deployed.status(500)
            (tmp_path / "service.py").write_text("import bentoml\n\n@bentoml.service\nclass Empty: ...\n")
            (tmp_path / "part").unlink()
            assert (await client.deploy(tmp_path, "empty"))["revision"] == 1
            await client.delete("empty")

    asyncio.run(all_of_it())


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    platform: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(httpx.ConnectError):
        httpx.get(platform.url)
    with Client(platform.url) as client:
        assert client.status()["endpoints"]


def test_without_an_address_the_client_finds_the_platform_of_the_data_folder(
    platform: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORPOR_URL", raising=False)
    monkeypatch.setenv("TORPOR_DATA", str(platform.data))
    with Client() as client:
        assert client.url == platform.url
