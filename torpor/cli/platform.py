"""Starting and stopping the platform: the router as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from torpor.cli.application import home
from torpor.client import Client
from torpor.errors import Conflict, NotFound, StartFailed, StartTimeout, TorporError

UP_WITHIN = 60.0
DOWN_WITHIN = 120.0


def command(part: str, arguments: list[str]) -> list[str]:
    """The command line of a part of the application."""
    if not (home() / part).is_dir():
        raise NotFound(f"torpor's application is not in {home()}\ninstall it: pip install 'torpor[platform]'")
    return [sys.executable, "-P", "-m", "torpor.cli.application", part, *arguments]


def run_here(part: str, arguments: list[str]) -> NoReturn:
    """Becomes that process."""
    line = command(part, arguments)
    sys.stdout.flush()
    os.execv(line[0], line)


def data_folder(data: str | None) -> Path:
    return Path(data or os.environ.get("TORPOR_DATA") or "~/.local/share/torpor").expanduser().absolute()


def up_detached(arguments: list[str], data: Path) -> dict[str, Any]:
    """Starts the router in the background; its address once it answers."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = command("router", arguments)
    log = data / "router.log"
    with log.open("ab") as out:
        router = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    give_up = time.monotonic() + UP_WITHIN
    while time.monotonic() < give_up:
        found = read_address(data)
        if found is not None and found["pid"] == router.pid and answers(found):
            return found
        if router.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise StartFailed("the platform did not start: " + " | ".join(last) + f"\nits log is {log}")
        time.sleep(0.02)
    router.terminate()
    raise StartTimeout(f"the platform did not answer within {UP_WITHIN:g} s\nits log is {log}")


def down(data: Path) -> dict[str, Any]:
    """Stops the router of a data folder; returns when it has ended."""
    found = read_address(data)
    if found is None:
        raise NotFound(f"no platform runs on {data}\nname its folder with --data")
    if not answers(found):
        raise Conflict(
            f"what {data}/torpor.json names (pid {found['pid']}) does not answer as a router\nlook for yourself"
        )
    os.kill(found["pid"], signal.SIGTERM)
    give_up = time.monotonic() + DOWN_WITHIN
    while Path(f"/proc/{found['pid']}").exists() and read_address(data) is not None:
        if time.monotonic() > give_up:
            raise StartTimeout(f"the platform still drains after {DOWN_WITHIN:g} s\nlook at {found['url']}")
        time.sleep(0.02)
    return found


def read_address(data: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((data / "torpor.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def answers(found: dict[str, Any]) -> bool:
    """Whether the router that the file names is the one that answers there."""
    try:
        with Client(found["url"]) as client:
            return bool(client.status()["pid"] == found["pid"])
    except TorporError:
        return False
