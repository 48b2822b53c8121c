"""A platform on which nothing happens for the time of `environment_idle`: its fork-server ends, and is made again."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from tests.system import handmade
from tests.system.running import running
from torpor.chaos.look import alive, written

SERVICE = """
import bentoml

@bentoml.service
class Hello:
    @bentoml.api
    def hello(self, name: str) -> str:
        return f"hello {name}"
"""


def fork_servers(data: Path) -> list[int]:
    return [pid for name, pid in written(data).items() if name.startswith("forkserver-") and alive(pid)]


def test_a_fork_server_that_nobody_uses_ends_and_the_next_call_makes_another(tmp_path: Path) -> None:
    file = tmp_path / "torpor.toml"
    file.write_text("environment_idle = 1\n")
    with running(tmp_path, "--config", str(file)) as platform:
        handmade.upload(platform.url, "hello", handmade.bento("hello", SERVICE, "service:Hello"))
        handmade.deployed(platform.url, "hello", "hello:1", sleep="deep")
        [before] = fork_servers(platform.data)
        time.sleep(1.5)
        assert fork_servers(platform.data) == [before], "a replica of it is awake"
        platform.told("sleep", "hello")
        give_up = time.monotonic() + 30
        while fork_servers(platform.data):
            assert time.monotonic() < give_up, "it is still there"
            time.sleep(0.05)
        assert not alive(before)
        answer = httpx.post(f"{platform.url}/endpoints/hello/hello", json={"name": "again"}, timeout=60)
        assert (answer.status_code, answer.text) == (200, "hello again")
        assert fork_servers(platform.data) != [before]
        assert "ended the fork-server of" in (platform.data / "router.log").read_text()
