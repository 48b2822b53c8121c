"""A fork-server and its replicas as the router has them: real processes, the packets of `docs/protocols.md`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from torpor.host import packet

SUBJECT = Path(__file__).parent / "subject" / "service.py"
WITHIN = 60.0  # seconds that anything may take on a busy machine
MARKER = "import os\nIMPORTED_BY = os.getpid()\n"


def until(happened: Callable[[], Any], within: float = WITHIN) -> None:
    give_up = time.monotonic() + within
    while not happened():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.005)


class Host:
    """One fork-server. `folder` holds what it may import besides what is installed, its log, and its replicas."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.importable = folder / "importable"
        self.importable.mkdir()
        (self.importable / "marker.py").write_text(MARKER)
        self.replicas: dict[str, Replica] = {}
        self.preloaded: list[str] = []
        self.skipped: dict[str, str] = {}
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(WITHIN)
        command = [sys.executable, "-P", "-m", "torpor.host.forkserver", "--control-fd", str(theirs.fileno())]
        env = {**os.environ, "PYTHONPATH": str(self.importable), "BENTOCLOUD_DEPLOYMENT_URL": "http://elsewhere"}
        env.pop("PYTHONUNBUFFERED", None)  # it would hide what replicas keep back
        with theirs, (folder / "forkserver.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=env, pass_fds=(theirs.fileno(),), stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.close()
            if "forked" in replica.told and "exited" not in replica.told:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(replica.pid, signal.SIGKILL)
        self.control.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def preload(self, *modules: str) -> dict[str, Any]:
        """What was preloaded now, and what was skipped."""
        packet.send(self.control, {"op": "preload", "modules": modules})
        ready = self.hear("ready")
        self.preloaded += ready["preloaded"]
        self.skipped |= ready["skipped"]
        return ready

    def hear(self, kind: str) -> dict[str, Any]:
        """The next packet of that kind; those of replicas are kept with them."""
        while True:
            told, _ = packet.receive(self.control)
            assert told, (self.folder / "forkserver.log").read_text()
            if "replica" in told:
                self.replicas[told["replica"]].told[told["ev"]] = told
            if told["ev"] == kind:
                return told

    def fork(self, target: str, source: str | None = None, **spec: Any) -> Replica:
        """A starting replica of the subject's class `target`, or of one in a module with this source."""
        name = f"subject-{len(self.replicas)}"
        replica = self.replicas[name] = Replica(self, name)
        service = replica.home / "source"
        service.mkdir(parents=True)
        if source is None:
            shutil.copy(SUBJECT, service / "service.py")
        else:
            (service / "service.py").write_text(source)
        named = target if ":" in target else f"service:{target}".rstrip(":")
        replica.start({"folder": str(service), "target": named, **spec})
        self.hear("forked")
        return replica


class Replica:
    """One replica's process, seen from its control socket, its address, and its log."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.home = host.folder / name
        self.address = str(self.home / "sock")
        self.log = self.home / "log"
        self.told: dict[str, dict[str, Any]] = {}
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(WITHIN)
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=self.address), base_url="http://replica", timeout=WITHIN
        )

    def start(self, spec: dict[str, Any]) -> None:
        state, run = self.home / "state", self.home / "run"
        state.mkdir(exist_ok=True)
        run.mkdir(exist_ok=True)
        whole = {
            "replica": self.name, "endpoint": "subject", "revision": 1, "bento": None, "env": {}, "concurrency": 0,
            "state_folder": str(state), "run_folder": str(run), "learn": False, **spec,
        }  # fmt: skip
        with socket.socket(socket.AF_UNIX) as listener, self._theirs, self.log.open("ab") as log:
            listener.bind(self.address)
            listener.listen()
            descriptors = [listener.fileno(), self._theirs.fileno(), log.fileno()]
            packet.send(self.host.control, {"op": "fork", "spec": whole}, descriptors)

    @property
    def pid(self) -> int:
        return int(self.told["forked"]["pid"])

    def hear(self) -> dict[str, Any]:
        """Its next packet; nothing at the end of file."""
        return packet.receive(self.control)[0] or {}

    def ready(self) -> dict[str, Any]:
        told = self.hear()
        assert told.get("ev") == "ready", (told, self.log.read_text())
        return told

    def exited(self) -> int:
        """Its exit status, once the fork-server has reaped it."""
        while "exited" not in self.told:
            self.host.hear("exited")
        return int(self.told["exited"]["status"])

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        self.http.close()
        self.control.close()

    def call(self, method: str, **arguments: Any) -> httpx.Response:
        return self.http.post(f"/{method}", json=arguments)

    def line(self, method: str, **arguments: Any) -> Line:
        """A connection of its own with that call sent."""
        body = json.dumps(arguments).encode()
        return Line(self.address, f"/{method}", [("content-type", "application/json")], body)


class Line:
    """A raw connection to a replica with one request on it; one that is not `ended` still lacks its body."""

    def __init__(
        self, address: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, ended: bool = True
    ) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WITHIN)
        self.socket.connect(address)
        lines = [f"POST {path} HTTP/1.1", "host: replica", *(f"{name}: {value}" for name, value in headers)]
        lines += [f"content-length: {len(body)}", "", ""] if ended else ["", ""]
        self.socket.sendall("\r\n".join(lines).encode() + body)

    def leave(self) -> None:
        """What a router does whose caller has left."""
        self.socket.shutdown(socket.SHUT_WR)

    def read(self, end: bytes) -> bytes:
        """What comes up to and with `end`."""
        data = b""
        while end not in data:
            piece = self.socket.recv(65536)
            assert piece, data
            data += piece
        return data

    def rest(self) -> bytes:
        """What still comes until the replica closes the connection."""
        data = b""
        while piece := self.socket.recv(65536):
            data += piece
        self.socket.close()
        return data

    def is_open(self) -> bool:
        """Neither data nor the end has come."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
            return False
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(WITHIN)


class Gate:
    """The file that a call waits for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def begun(self) -> None:
        """Returns when the call has begun."""
        until(self.path.with_name(self.path.name + ".begun").exists)

    def open(self) -> None:
        self.path.touch()

    @property
    def done(self) -> bool:
        """The call's own work is done."""
        return self.path.with_name(self.path.name + ".done").exists()
