"""Starting and stopping the platform: the router as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torpor.cli.application import home
from torpor.errors import Conflict, InvalidConfig, NotFound, StartFailed, StartTimeout, TorporError, from_body
from torpor.local import data_folder, read_address

if TYPE_CHECKING:
    from torpor.client import Client

__all__ = ["answers", "configured_data", "data_folder", "down", "read_address", "run_here", "up_detached"]

UP_WITHIN = 60.0
DOWN_WITHIN = 120.0
SHOWN = 3  # last lines of a router that did not start


def command(part: str, arguments: list[str]) -> list[str]:
    """The command line of a part of the application."""
    if not (home() / part.partition(".")[0]).is_dir():
        raise NotFound(f"torpor's application is not in {home()}\ninstall it: pip install 'torpor[platform]'")
    return [sys.executable, "-P", "-m", "torpor.cli.application", part, *arguments]


def run_here(part: str, arguments: list[str]) -> NoReturn:
    """Becomes that process."""
    line = command(part, arguments)
    sys.stdout.flush()
    os.execv(line[0], line)


def configured_data(data: str | None, config: str | None) -> Path:
    """The data folder that a router will use: a torpor.toml may name one. Raises InvalidConfig."""
    if data is not None or config is None:
        return data_folder(data)
    line = command("router", ["--print-config", "--json", "--config", config])
    done = subprocess.run(line, capture_output=True, text=True)
    if (error := said(done.stdout)) is not None:
        raise error
    return Path(json.loads(done.stdout)["data"])


def up_detached(arguments: list[str], data: Path, shown: bool = False) -> dict[str, Any]:
    """Starts the router in the background; its address once it answers. Raises what kept it from starting.

    `shown`: the caller will show the token that a first start may have to make; it comes as `["token"]`.
    """
    log = usable(data) / "router.log"
    line = command("router", [*arguments, "--json", "--data", str(data), "--log-file", str(log)])
    told, tell = os.pipe()
    os.set_blocking(told, False)
    if shown:
        line += ["--token-fd", str(tell)]
    with log.open("ab") as out, os.fdopen(told, "rb", buffering=0) as first:
        before = out.tell()
        detached: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": out,
            "stderr": out,
            "start_new_session": True,
        }
        router = subprocess.Popen(line, **detached, pass_fds=(tell,) if shown else ())
        os.close(tell)
        found = started(router, data, log, before)
        token = first.read()  # None where there is nothing to be read now
    return {**found, "token": token.decode()} if token else found


def usable(data: Path) -> Path:
    """A data folder, made where it is not there, with a log that can be written. Raises InvalidConfig."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        (data / "router.log").open("ab").close()
    except OSError as error:
        raise InvalidConfig(
            f"the data folder {data} cannot be used: {error.strerror}\nname another with --data"
        ) from None
    return data


def started(router: subprocess.Popen[bytes], data: Path, log: Path, before: int) -> dict[str, Any]:
    """The address of a router once it answers; its log is new from `before`. One that does not is ended."""
    try:
        give_up = time.monotonic() + UP_WITHIN
        while time.monotonic() < give_up:
            found = read_address(data)
            if found is not None and found["pid"] == router.pid and answers(found):
                return found
            if router.poll() is not None:
                with log.open("rb") as written:
                    written.seek(before)
                    raise not_started(written.read().decode(errors="replace"), log)
            time.sleep(0.02)
    except BaseException:
        router.terminate()
        raise
    router.terminate()
    raise StartTimeout(f"the platform did not answer within {UP_WITHIN:g} s\nits log is {log}")


def not_started(text: str, log: Path) -> TorporError:
    last = " | ".join(text.strip().splitlines()[-SHOWN:])
    return said(text) or StartFailed(f"the platform did not start: {last}\nits log is {log}")


def said(text: str) -> TorporError | None:
    """The error that a router's last line is, where it is one."""
    try:
        body = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return from_body(500, body) if isinstance(body, dict) and "error" in body else None


def down(data: Path) -> dict[str, Any]:
    """Stops the router of a data folder; returns when it has ended."""
    found = read_address(data)
    if found is None or not running(found):
        raise NotFound(f"no platform runs on {data}\nname its folder with --data")
    if not answers(found):
        raise Conflict(
            f"pid {found['pid']}, which {data}/torpor.json names, does not answer at {found['url']} as its router\n"
            f"see what it is: ps {found['pid']}; if it is no router, remove that file"
        )
    os.kill(found["pid"], signal.SIGTERM)
    give_up = time.monotonic() + DOWN_WITHIN
    while running(found):
        if time.monotonic() > give_up:
            raise StartTimeout(f"the platform still drains after {DOWN_WITHIN:g} s\nlook at {found['url']}")
        time.sleep(0.02)
    return found


def running(found: dict[str, Any]) -> bool:
    """Whether the process is there and not merely waited for by its parent (proc(5): state Z)."""
    try:
        stat = Path(f"/proc/{found['pid']}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def answers(found: dict[str, Any]) -> bool:
    """Whether the router that the file names is the one that answers there."""
    try:
        with local(found) as client:
            return bool(client.status()["pid"] == found["pid"])
    except TorporError:
        return False


@contextmanager
def local(found: dict[str, Any]) -> Iterator[Client]:
    """A client of this machine's router, at the socket in its folder: whoever may write there needs no token."""
    from torpor.client import Client
    from torpor.client.connection import over_socket

    folder, _, name = str(found.get("control", "/nowhere/control.sock")).rpartition("/")
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # a socket's path is short only so, wherever the folder is
    except OSError as error:
        raise NotFound(f"{folder} cannot be used: {error.strerror}\nname the platform by its --url") from None
    try:
        with Client("http://localhost", transport=over_socket(f"/proc/self/fd/{fd}/{name}")) as client:
            yield client
    finally:
        os.close(fd)
