"""Every error that a platform can answer, met by the client as its class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DEPLOYED
from tests.system.running import Running, running
from torpor import Client, errors
from torpor.cli.platform import down
from torpor.client import flow

CONFIG = "max_body = 1_000_000\nanswer_within = 2\n"
SETTINGS = [
    f"--set={each}" for each in ["start_within=60", "drain_within=0", "stop_within=1", "max_queue=1", "sleep=deep"]
]
EMPTY = (
    "import bentoml\n\n@bentoml.service\nclass Empty:\n    @bentoml.api\n    def one(self) -> int:\n        return 1\n"
)


@pytest.fixture(scope="module")
def flag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says how the next start goes."""
    return tmp_path_factory.mktemp("flag") / "flag"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, flag: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("errors")
    (folder / "torpor.toml").write_text(CONFIG)
    with running(folder, "--config", str(folder / "torpor.toml")) as each:
        each.told("deploy", str(DEPLOYED), "--name", "deployed", "--env", f"FLAG={flag}", *SETTINGS)
        yield each


@pytest.fixture
def client(platform: Running, flag: Path) -> Iterator[Client]:
    with Client(platform.url, answer_within=30) as each:
        yield each
        if flag.exists():
            flag.unlink()
            quietly(each.sleep, "deployed", force=True)  # ends a slow start


def service(folder: Path, text: str) -> Path:
    (folder / "service.py").write_text(text)
    return folder


def asleep(client: Client, flag: Path, start: str) -> None:
    """Asleep, whatever was before; the next start goes as told."""
    until(lambda: quietly(client.wake, "deployed") is None)  # also after a start that failed
    client.sleep("deployed", force=True)
    flag.write_text(start)


def garbled(client: Client) -> None:
    client.endpoint("deployed").garbage()


def foreign(client: Client) -> None:
    """What a page of another site gets, rebuilt as the client does."""
    answer = httpx.get(f"{client.url}/torpor/v1/status", headers={"Host": "evil.example"})
    raise errors.from_body(answer.status_code, answer.json())


# Each by what it is to be, and how it is met.
MET: dict[type[errors.TorporError], Callable[[Client], Any]] = {
    errors.BadRequest: lambda client: list(client.logs("deployed", tail=-1)),
    errors.Forbidden: foreign,
    errors.EndpointNotFound: lambda client: client.get("nosuch"),
    errors.NotFound: lambda client: client._drive(flow.control("GET", "/nosuch")),
    errors.BodyTooLarge: lambda client: client.endpoint("deployed").digest(b"x" * 2_000_000),
    errors.HeadersTooLarge: lambda client: Client(client.url, token="x" * 200_000).status(),
    errors.ReplicaDied: lambda client: client.endpoint("deployed").exit(),
    errors.BadAnswer: garbled,
    errors.CallFailed: lambda client: client.endpoint("deployed").status(507),
    errors.CallTimeout: lambda client: client.endpoint("deployed").wait(600),
    errors.PlatformUnreachable: lambda client: Client("http://127.0.0.1:9").list(),
}


@pytest.mark.parametrize("kind", MET, ids=lambda kind: kind.__name__)
def test_an_answered_error_is_raised_as_its_class(client: Client, kind: type[errors.TorporError]) -> None:
    with pytest.raises(errors.TorporError) as raised:
        MET[kind](client)
    assert type(raised.value) is kind
    assert raised.value.status == (507 if kind is errors.CallFailed else kind.status)
    assert len(raised.value.message.splitlines()) == (1 if kind is errors.CallFailed else 2)


@pytest.mark.parametrize(
    ("kind", "text", "settings", "says"),
    [
        (errors.InvalidConfig, EMPTY, {"idle_after": "x", "max_queu": 1}, "idle_after = 'x'.*did you mean max_queue"),
        (
            errors.ModelNotFound,
            EMPTY.replace(
                "    @bentoml.api", "    model = bentoml.models.BentoModel('nosuch:latest')\n\n    @bentoml.api"
            ),
            {},
            "nosuch:latest\nexport it first: torpor export",
        ),
        (errors.StartFailed, EMPTY + "\n    def __init__(self) -> None:\n        1 / 0\n", {}, "ZeroDivisionError"),
        (
            errors.StartTimeout,
            "import time\n" + EMPTY + "\n    def __init__(self) -> None:\n        time.sleep(600)\n",
            {"start_within": 0.5},
            "not ready after 0.5 s",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_deploy_that_cannot_be_says_why_and_leaves_nothing(
    client: Client,
    platform: Running,
    tmp_path: Path,
    kind: type[errors.TorporError],
    text: str,
    settings: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(errors.TorporError, match=f"(?s){says}") as raised:
        client.deploy(service(tmp_path, text), "broken", settings=settings)
    assert type(raised.value) is kind
    assert [view["name"] for view in client.list()] == ["deployed"]
    assert "torpor logs" not in raised.value.message
    assert [part for part in ("logs", "endpoints") if (platform.data / part / "broken").exists()] == []


def test_a_start_that_fails_is_told_at_once_with_the_log_and_the_next_one_may_succeed(
    client: Client, flag: Path
) -> None:
    asleep(client, flag, "broken")
    with pytest.raises(errors.StartFailed, match="told not to start") as raised:
        client.endpoint("deployed").shout("a")
    assert any("RuntimeError" in line for line in raised.value.detail["log"])
    flag.unlink()
    until(lambda: quietly(client.endpoint("deployed").shout, "a") is None)


def test_queue_within_is_the_callers_own_patience_and_a_full_queue_is_waited_for(client: Client, flag: Path) -> None:
    asleep(client, flag, "slow")
    patient = client.endpoint("deployed", queue_within=60)
    waiting = threading.Thread(target=quietly, args=(patient.shout, "a"))
    waiting.start()
    until(lambda: client.get("deployed")["parked"] == 1)
    with pytest.raises(errors.QueueFull) as full:
        client.endpoint("deployed", answer_within=0.1).shout("b")
    assert full.value.retryable
    assert full.value.retry_after is not None
    client.sleep("deployed", force=True)  # ends what is parked
    waiting.join()
    with pytest.raises(errors.QueueTimeout, match="as long as it may"):
        client.endpoint("deployed", queue_within=0.05).shout("a")


def test_an_endpoint_with_calls_in_flight_is_put_to_sleep_only_by_force(client: Client) -> None:
    until(lambda: quietly(client.wake, "deployed") is None)
    words = client.endpoint("deployed").words("a b", pause=600)
    next(words)
    with pytest.raises(errors.Conflict, match="force"):
        client.sleep("deployed")
    words.close()


def test_answer_within_ends_a_call_that_takes_longer(client: Client) -> None:
    with pytest.raises(errors.CallTimeout, match=r"no answer within 0\.2 s"):
        client.endpoint("deployed", answer_within=0.2).wait(600)


def test_a_stream_that_breaks_is_told_apart_from_one_that_ends(client: Client) -> None:
    stream = client.endpoint("deployed").die(words=3)
    assert next(stream) == "word "
    with pytest.raises(errors.GaveUp, match="broke"):
        list(stream)


def test_what_is_not_torpor_is_named_so() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, html="<h1>It works!</h1>")

    client = Client("http://127.0.0.1:80", transport=httpx.MockTransport(page))
    with pytest.raises(errors.BadAnswer, match="not torpor: 200 text/html"):
        client.list()
    for address in ("127.0.0.1:7300", "http://", "ftp://127.0.0.1"):
        with pytest.raises(errors.InvalidConfig, match="not a platform's address"):
            Client(address)


def test_an_answer_that_trickles_is_bounded_as_a_whole() -> None:
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.02)  # each within any bound of a single read
            yield b" "

    def endpoint(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, content=drip())
        route = {"name": "slow", "route": "/slow", "input": {"type": "object", "properties": {}}, "output": {}}
        return httpx.Response(200, json={"schema": {"routes": [route]}})

    with Client("http://127.0.0.1", transport=httpx.MockTransport(endpoint), answer_within=0.2) as client:
        endpoint_ = client.endpoint("e")
        with pytest.raises(errors.CallTimeout, match=r"no answer within 0\.2 s"):
            endpoint_.slow()


def test_a_call_that_is_parked_while_the_platform_ends_is_told(platform: Running, client: Client, flag: Path) -> None:
    """The last one here: it ends the platform."""
    asleep(client, flag, "slow")
    met: list[BaseException | None] = []
    endpoint = client.endpoint("deployed", answer_within=3)
    waiting = threading.Thread(target=lambda: met.append(quietly(endpoint.shout, "a")))
    waiting.start()
    until(lambda: client.get("deployed")["parked"] == 1)
    down(platform.data)
    waiting.join()
    assert type(met[0]) is errors.ShuttingDown
    with pytest.raises(errors.PlatformUnreachable, match="torpor up"):
        client.list()


def quietly(call: Callable[..., Any], *arguments: Any, **named: Any) -> BaseException | None:
    try:
        call(*arguments, **named)
    except errors.TorporError as error:
        return error
    return None


def until(happened: Callable[[], bool], within: float = 20) -> None:
    give_up = time.monotonic() + within
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.01)
