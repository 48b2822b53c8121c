"""The whole platform as a user has it: up, deploy, call at zero, sleep, restart, kill, remove, down."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor import Client
from torpor.cli.platform import answers, down, read_address, up_detached
from torpor.errors import EndpointNotFound, StartFailed

SERVICE = """
import os
import bentoml

@bentoml.service
class Hello:
    @bentoml.api
    def hi(self, name: str) -> dict:
        return {"hello": name}

    @bentoml.api
    def die(self) -> dict:
        os._exit(3)
"""


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Path]]:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    (tmp_path / "bentoml").mkdir()
    data = tmp_path / "data"
    found = up_detached(["--data", str(data), "--port", "0"], data)
    with Client(found["url"], answer_within=60) as client:
        yield client, data
    if (left := read_address(data)) is not None and answers(left):
        down(data)


def service(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "service.py").write_text(text)
    return folder


def test_a_deployed_service_sleeps_wakes_survives_a_kill_and_is_removed(
    platform: tuple[Client, Path], tmp_path: Path
) -> None:
    client, data = platform
    client.deploy(service(tmp_path / "hello", SERVICE), "hello")
    assert client.endpoint("hello").hi(name="a") == {"hello": "a"}
    assert client.sleep("hello")["replicas"] == []
    assert client.endpoint("hello").hi(name="b") == {"hello": "b"}
    assert client.get("hello")["cold_starts"] == 1

    found = read_address(data)
    assert found is not None
    orphan = client.get("hello")["replicas"][0]["pid"]
    os.kill(found["pid"], signal.SIGKILL)
    while Path(f"/proc/{found['pid']}/exe").exists():
        time.sleep(0.01)
    (data / "torpor.json").unlink()
    again = up_detached(["--data", str(data), "--port", "0"], data)
    assert not Path(f"/proc/{orphan}/exe").exists()
    with Client(again["url"], answer_within=60) as second:
        assert second.endpoint("hello").hi(name="c") == {"hello": "c"}
        second.delete("hello")
        with pytest.raises(EndpointNotFound):
            second.get("hello")


def test_a_service_that_cannot_start_is_refused_with_its_traceback_and_nothing_is_registered(
    platform: tuple[Client, Path], tmp_path: Path
) -> None:
    client, _ = platform
    broken = SERVICE.replace(
        "    @bentoml.api\n    def hi", "    def __init__(self): 1 / 0\n\n    @bentoml.api\n    def hi"
    )
    with pytest.raises(StartFailed, match="ZeroDivisionError") as raised:
        client.deploy(service(tmp_path / "broken", broken), "broken")
    assert any("1 / 0" in line for line in raised.value.detail["log"])
    assert client.list() == []


def test_an_unreachable_platform_is_an_error_of_its_own() -> None:
    from click.testing import CliRunner

    from torpor.cli.commands import cli

    result = CliRunner().invoke(cli, ["--url", "http://127.0.0.1:9", "ls", "--json"])
    assert (result.exit_code, json.loads(result.output)["code"]) == (6, "platform_unreachable")
