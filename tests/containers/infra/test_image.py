"""The image of torpor itself, built and run by the real engine.

The containers have no network: their ports are not published here (the test of compose.yaml does that).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from secrets import token_hex

import pytest

from tests.containers.infra.box import Box, Tool, eventually
from tests.system.running import EXAMPLES

DATA = "/var/lib/torpor"
LOOK = """
import os, pathlib, torpor
parts = (pathlib.Path(torpor.__file__).parent / "_app").iterdir()
print(os.getuid(), *sorted(each.name for each in parts), os.path.exists("/source"), os.access("/opt/torpor", os.W_OK))
"""
KILL = """
import os, pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"torpor.host.forkserver" in path.read_bytes():
        os.kill(int(path.parent.name), 9)
        break
"""


@pytest.fixture(scope="module")
def volume(tool: Tool) -> Iterator[str]:
    name = f"torpor-test-{token_hex(4)}"
    tool.told("volume", "create", name)
    yield name
    tool.run("volume", "rm", "-f", name)


@pytest.fixture(scope="module")
def box(tool: Tool, image: str, volume: str) -> Iterator[Box]:
    """The three lines of the Containerfile's head, with the token that the second prints."""
    mounted = ["--network", "none", "-v", f"{volume}:{DATA}"]
    token = tool.told("run", "--rm", *mounted, image, "tokens", "create", "admin", "--scope", "admin").strip()
    name = f"torpor-test-{token_hex(4)}"
    try:
        tool.told("run", "-d", "--name", name, *mounted, image)
        yield Box(tool, name, (f"TORPOR_TOKEN={token}",))
    finally:
        tool.run("rm", "-f", name)


@pytest.fixture(scope="module")
def served(box: Box, tool: Tool) -> Box:
    """With the endpoint `hello`."""
    assert eventually(lambda: healthy(box)), box.logs()
    tool.told("cp", str(EXAMPLES / "hello_json"), f"{box.name}:/tmp/hello")
    box.told("torpor", "deploy", "/tmp/hello", "--name", "hello")
    return box


def healthy(box: Box) -> bool:
    """As the engine finds it. Podman looks by systemd's timers: on a machine without systemd, when it is told to."""
    if box.tool.podman:
        return box.tool.run("healthcheck", "run", box.name).returncode == 0
    return bool(box.state()["Health"]["Status"] == "healthy")


def test_what_runs_is_not_root_and_the_image_has_torpor_and_nothing_of_its_making(tool: Tool, image: str) -> None:
    [told] = json.loads(tool.told("image", "inspect", image))
    config = told["Config"]
    assert config["User"] == "torpor"
    assert list(config["Volumes"]) == [DATA]
    found = tool.told("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", LOOK)
    assert found.split() == ["10001", "models", "router", "services", "False", "False"]


def test_without_a_token_it_does_not_start_and_says_how_to_make_one(tool: Tool, image: str) -> None:
    done = tool.run("run", "--rm", "--network", "none", image)
    assert done.returncode not in (0, 125)
    assert "torpor tokens create" in done.stderr + done.stdout


def test_it_becomes_healthy_and_what_answers_on_nothing_is_not(box: Box, tool: Tool, image: str) -> None:
    assert eventually(lambda: healthy(box)), box.logs()
    [told] = json.loads(tool.told("image", "inspect", image))
    check = (told["Config"].get("Healthcheck") or told["Healthcheck"])["Test"]
    assert check[0] == "CMD"
    assert box.run(*check[1:]).returncode == 0
    assert box.run(*check[1:], env=("TORPOR_DATA=/tmp/nothing",)).returncode == 1


def test_the_doctor_finds_nothing_that_does_not_work(box: Box) -> None:
    done = box.run("torpor", "doctor", "--json")
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert (done.returncode, [c for c in found.values() if c["state"] == "fail"]) == (0, [])
    assert {name for name, check in found.items() if check["state"] == "warn"} <= {"containers", "processor"}


def test_a_bento_is_deployed_sleeps_wakes_and_is_closed_to_who_has_no_token(served: Box) -> None:
    served.told("torpor", "sleep", "hello")
    assert served.greet("Ada") == "Hello, Ada!"
    refused = replace(served, env=()).run("torpor", "call", "hello", "greet", "--json", "{}")
    assert refused.returncode != 0
    assert "token" in refused.stderr


def test_orphans_are_reaped(served: Box) -> None:
    served.greet("Ada")
    served.told("python", "-c", KILL)
    assert eventually(lambda: served.zombies() == []), served.zombies()
    assert served.greet("Bob") == "Hello, Bob!"


def test_it_ends_when_it_is_told_to_and_has_its_endpoints_when_it_starts_again(served: Box, tool: Tool) -> None:
    tool.told("stop", "-t", "60", served.name)
    assert served.state()["ExitCode"] == 0
    tool.told("start", served.name)
    assert eventually(lambda: healthy(served)), served.logs()
    assert served.greet("Eve") == "Hello, Eve!"
