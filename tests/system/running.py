"""A platform in a temporary folder, and the command line against it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torpor.cli.platform import answers, down, read_address

TORPOR = str(Path(sys.executable).with_name("torpor"))
REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
WITHIN = 120.0  # seconds of one command


@dataclass(frozen=True)
class Running:
    """A started platform. `env` points every torpor command at it."""

    url: str
    pid: int
    data: Path
    env: dict[str, str]

    def torpor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, however it ends."""
        return subprocess.run([TORPOR, *arguments], env=self.env, capture_output=True, text=True, timeout=WITHIN)

    def told(self, *arguments: str) -> str:
        """What a command that has to succeed prints."""
        done = self.torpor(*arguments)
        assert done.returncode == 0, f"torpor {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def clean_environment(folder: Path) -> dict[str, str]:
    """The environment of a user who has nothing yet but `folder`."""
    (folder / "bentoml").mkdir(exist_ok=True)
    env = {key: value for key, value in os.environ.items() if not key.startswith("TORPOR_")}
    return env | {
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "TORPOR_DATA": str(folder / "data"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Running]:
    """`torpor up --detach` on a free port, and `torpor down` at the end."""
    env = clean_environment(folder)
    data = folder / "data"
    try:
        up = [TORPOR, "up", "--detach", "--port", "0", *flags]
        done = subprocess.run(up, env=env, capture_output=True, text=True, timeout=WITHIN)
        assert done.returncode == 0, done.stderr
        found = read_address(data)
        assert found is not None
        yield Running(found["url"], found["pid"], data, env | {"TORPOR_URL": found["url"]})
    finally:
        if (left := read_address(data)) is not None and answers(left):
            down(data)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
