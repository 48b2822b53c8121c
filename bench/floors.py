"""What an engine needs at least: a container that serves one byte, and one that loads the service and answers a call.

The second is what a person writes who needs no platform: the same image, user, environment and mounts by the engine's
own command, a script that imports the service's module, makes the service and calls its method once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from bench.engine import Engine
from bench.stock import BODY
from router.launch.container.spec import RUN
from torpor.errors import EngineUnreachable

WITHIN = 60.0  # seconds from a start to the first byte
INSIDE = "/run/bench"  # where the folder of the call socket is, in the container
OWN = ("HOSTNAME", "TERM", "container")  # variables that an engine sets itself

BYTE = f"""
import os, socket
os.umask(0)
door = socket.socket(socket.AF_UNIX)
door.bind("{INSIDE}/socket")
door.listen()
line, _ = door.accept()
line.sendall(b"1")
"""

LOADED = f"""
import time
marks = {{"script": time.monotonic()}}
import json, os, socket, sys
os.umask(0)
door = socket.socket(socket.AF_UNIX)
door.bind("{INSIDE}/socket")
door.listen()
sys.path.insert(0, sys.argv[1])
import service
marks["imports"] = time.monotonic()
made = service.Embedding.inner()
marks["model"] = time.monotonic()
line, _ = door.accept()
with line.makefile("rw") as file:
    vectors = made.embed(json.loads(file.readline())["texts"])
    marks["call"] = time.monotonic()
    file.write(json.dumps([vectors.tolist(), marks]))
"""


@dataclass(frozen=True, slots=True)
class Floor:
    """Seconds to the answer's last byte, and of its phases, in their order."""

    took: float
    phases: dict[str, float]


class Floors:
    """Of one image. `like`: what the engine says of a container of torpor's, whose user, environment and mounts the
    script has too; `source`: the folder of the service's module, as that container sees it."""

    def __init__(self, engine: Engine, like: dict[str, Any], source: str) -> None:
        self._engine = engine
        self._like = like
        self._image = str(like["Image"]).removeprefix("sha256:")
        self._source = source
        self._command = command(engine, self._image)
        self.prefix = f"torpor-bench-{token_hex(4)}"  # of its containers' names

    def run_byte(self) -> Floor:
        """By the engine's command, from its exec to the byte."""
        with self._place() as (name, folder):
            arguments = ["--entrypoint", "python", self._image, "-c", BYTE]
            began = time.perf_counter()
            with self._running(name, folder, arguments) as running, connected(folder / "socket", running) as line:
                assert line.recv(1) == b"1", "the container served no byte"
                return Floor(time.perf_counter() - began, {})

    def api_byte(self) -> Floor:
        """By the engine's API: made, started, and the byte. Phases: create, start (with the byte)."""
        with self._place() as (name, folder):
            host = {"NetworkMode": "none", "Binds": [f"{folder}:{INSIDE}"]}
            config = {"Image": self._image, "Entrypoint": ["python", "-c", BYTE], "Cmd": [], "HostConfig": host}
            began = time.perf_counter()
            self._engine.create(name, config)
            made = time.perf_counter()
            self._engine.start(name)
            with connected(folder / "socket", None) as line:
                assert line.recv(1) == b"1", "the container served no byte"
            ended = time.perf_counter()
        return Floor(ended - began, {"create": made - began, "start": ended - made})

    def run_loaded(self) -> Floor:
        """By the engine's command, from its exec to the answer of one call.

        Phases: script (until its first line runs: engine and interpreter), imports, model, call.
        """
        with self._place() as (name, folder):
            arguments = [*self._options(), "--entrypoint", "python", self._image, "-c", LOADED, self._source]
            told = b""
            began = time.perf_counter()
            with self._running(name, folder, arguments) as running, connected(folder / "socket", running) as line:
                with contextlib.suppress(ConnectionError):
                    line.sendall(BODY.encode() + b"\n")
                    told = b"".join(iter(lambda: line.recv(1 << 16), b""))
                took = time.perf_counter() - began
                if not told:
                    raise ended(running)
            vectors, marks = json.loads(told)
            assert len(vectors) == 1, "the script answered something else"
            # The container's monotonic clock is the host's, and so is perf_counter.
            before = [began, *marks.values()]
            return Floor(took, {name: at - before[k] for k, (name, at) in enumerate(marks.items())})

    def _options(self) -> list[str]:
        config, host = self._like["Config"], self._like["HostConfig"]
        env = [each for each in config["Env"] if each.partition("=")[0] not in OWN]
        home = next(each.partition("=")[2] for each in env if each.startswith("BENTOML_HOME="))
        found = ["--user", config["User"], "--tmpfs", f"{home}:rw,size=1m,mode=1777"]
        if any(path.startswith("/root") for path in host.get("Tmpfs") or {}):  # closed to others in most images
            found += ["--tmpfs", "/root:rw,size=1m,mode=1777"]
        for each in [*env, "TORPOR_PRECISION=int8", "TORPOR_THREADS=1"]:
            found += ["--env", each]
        for each in host["Binds"]:
            source, target, mode = each.rsplit(":", 2)
            if target != RUN:
                found += ["--volume", f"{source}:{target}:{mode.partition(',')[0]}"]
        return found

    @contextlib.contextmanager
    def _place(self) -> Iterator[tuple[str, Path]]:
        """A name, and a folder for the call socket; the container is gone afterwards."""
        name = f"{self.prefix}-{token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="torpor-floor-") as folder:
            os.chmod(folder, 0o777)
            try:
                yield name, Path(folder)
            finally:
                self._engine.remove(name)

    @contextlib.contextmanager
    def _running(self, name: str, folder: Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        own = ["run", "--rm", "--network", "none", "--name", name, "--volume", f"{folder}:{INSIDE}"]
        whole = [*self._command, *own, *arguments]
        running = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            yield running
            running.wait(WITHIN)  # the container is gone before the next thing is measured
        finally:
            if running.poll() is None:
                self._engine.remove(name)
                running.kill()
                running.wait()
            assert running.stderr is not None
            running.stderr.close()


@contextlib.contextmanager
def connected(place: Path, running: subprocess.Popen[bytes] | None) -> Iterator[socket.socket]:
    """A line to what listens in the container, as soon as it does. Raises TimeoutError, or what `running` said."""
    give_up = time.perf_counter() + WITHIN
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(WITHIN)
        while True:
            try:
                line.connect(str(place))
                break
            except OSError as error:
                if running is not None and running.poll() is not None:
                    raise ended(running) from error
                if time.perf_counter() > give_up:
                    raise TimeoutError(f"the floor's container served nothing within {WITHIN:.0f} s") from error
                time.sleep(0.001)
        yield line


def ended(running: subprocess.Popen[bytes]) -> RuntimeError:
    running.wait(WITHIN)
    assert running.stderr is not None
    return RuntimeError(f"the floor's container ended: {running.stderr.read().decode()}")


def command(engine: Engine, image: str) -> list[str]:
    """The engine's own command line, which has the image; through the socket where it has others by itself."""
    found = shutil.which(engine.name)
    if found is None:
        raise EngineUnreachable(
            f"the engine's own command is measured too, and there is no {engine.name} on the PATH\n"
            "run the bench where it is installed"
        )
    if subprocess.run([found, "image", "inspect", image], capture_output=True).returncode == 0:
        return [found]
    return [found, "--url" if engine.name == "podman" else "--host", f"unix://{engine.socket}"]
