"""The control plane after its router was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from router.launch.orphans import born
from tests.system import handmade
from tests.system.running import free_port, running
from tests.system.test_control_plane import API, OTHERS, PATIENCE, SERVICE, replicas_of, until
from torpor.cli.platform import up_detached


def holder_of(port: int) -> socket.socket:
    """Listens on the port, once the threads of a killed process have let go of it."""
    found: list[socket.socket] = []

    def taken() -> bool:
        with suppress(OSError):
            found.append(socket.create_server(("127.0.0.1", port)))
        return bool(found)

    until(taken)
    return found[0]


def test_a_router_killed_in_mid_deploy_comes_back_as_it_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an endpoint whose own port something else has taken meanwhile; the log is quiet about the rest."""
    port = free_port()
    with ExitStack() as until_down, running(tmp_path) as platform:
        url = platform.url
        for name, text, kind in (("hello", SERVICE, "Hello"), ("slow", OTHERS, "Slow")):
            handmade.upload(url, name, handmade.bento(name, text, f"service:{kind}"))
        handmade.deployed(url, "hello", "hello:1", port=port)
        before = httpx.get(f"{url}{API}/endpoints/hello").json()
        with httpx.stream("POST", f"{url}{API}/endpoints", json={"name": "hello", "bento": "slow:1"}) as answer:
            lines = answer.iter_lines()
            while json.loads(next(lines)).get("phase") != "starting":
                pass
            until(lambda: len(replicas_of(platform, "hello")) == 2)
            left = replicas_of(platform, "hello")
            os.kill(platform.pid, signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                next(lines)
        until(lambda: born(platform.pid) is None)
        monkeypatch.setenv("BENTOML_HOME", platform.env["BENTOML_HOME"])
        with holder_of(port):
            again = up_detached(["--port", "0"], platform.data)
            assert {born(pid) for pid in left} == {None}, "nothing of it runs on"
            view = httpx.get(f"{again['url']}{API}/endpoints/hello").json()
            passing = dict.fromkeys(("url", "replicas", "template", "rung", "state", "last_error"))
            assert view | passing == before | passing
            assert view["state"] == "asleep"
            assert f"port {port} of 127.0.0.1 cannot be had" in view["last_error"]
        called = httpx.post(f"{again['url']}/endpoints/hello/hi", json={"name": "a"}, timeout=PATIENCE)
        assert called.json() == {"hello": "a"}
        until(lambda: httpx.get(f"{again['url']}{API}/endpoints/hello").json()["last_error"] is None)
        assert httpx.post(f"http://127.0.0.1:{port}/hi", json={"name": "b"}, timeout=PATIENCE).json() == {"hello": "b"}
        log = (platform.data / "router.log").read_text()
        assert "processes that an earlier router left" in log
        assert f"port {port} of 127.0.0.1 cannot be had" in log
        assert "uvicorn" not in log
        assert "alembic" not in log
        following = f"{again['url']}{API}/endpoints/hello/logs?follow=true"
        lines = until_down.enter_context(httpx.stream("GET", following, timeout=PATIENCE)).iter_lines()
        assert next(lines).startswith("hello-1-")
        until_down.callback(lambda: list(lines))  # the router ends it: else it would raise that it was cut off
