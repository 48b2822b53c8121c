"""A container under test, through the engine's own command line."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WITHIN = 300.0  # seconds of one command
LABEL = "torpor.test"  # of images and containers that these tests make, by their run
ZOMBIES = """
import pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        pid, rest = path.parent.name, path.read_text().rpartition(")")[2].split()
    except OSError:
        continue
    if rest[0] == "Z":
        print(pid)
"""


@dataclass(frozen=True)
class Tool:
    """`docker`, or `podman` that speaks to the same socket."""

    command: tuple[str, ...]
    podman: bool

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, however it ends."""
        return subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=WITHIN)

    def told(self, *arguments: str) -> str:
        """What a command that has to succeed prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr}"
        return done.stdout


@dataclass(frozen=True)
class Box:
    """A container by its name. `env`: what commands in it get."""

    tool: Tool
    name: str
    env: tuple[str, ...] = ()

    def run(self, *command: str, env: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        flags = [flag for each in (*self.env, *env) for flag in ("-e", each)]
        return self.tool.run("exec", *flags, self.name, *command)

    def told(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr}"
        return done.stdout

    def state(self) -> dict[str, Any]:
        [told] = json.loads(self.tool.told("inspect", "--type", "container", self.name))
        return dict(told["State"])

    def logs(self) -> str:
        done = self.tool.run("logs", self.name)
        return done.stdout + done.stderr

    def zombies(self) -> list[str]:
        """Pids of processes that have ended and that nobody has waited for."""
        return self.told("python", "-c", ZOMBIES).split()

    def greet(self, name: str) -> str:
        """A call of the endpoint `hello`."""
        person = json.dumps({"person": {"name": name}})
        return str(json.loads(self.told("torpor", "call", "hello", "greet", "--json", person))["text"])


def eventually(true: Callable[[], bool], within: float = 60.0) -> bool:
    """Whether it became so in time."""
    until = time.monotonic() + within
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
