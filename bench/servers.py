"""The servers of one embedding service that are compared, all on one core, each answering the same call."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.platform import BIN, CACHE, ROOT, started
from bench.sides import free_port
from bench.stock import post, serving

PEERS = CACHE / "peers"  # an environment of their own
REQUIRED = ("litserve==0.2.19", "mosec==0.9.8", "tokenizers>=0.21,<0.23", "numpy>=2.0")
BATCH = 64  # calls in one batch at most, as in the service
BATCHED = "batchable=True, batch_dim=0, max_batch_size=64"  # what the service says of its method
_WITHIN = 60.0  # seconds to a server's first answer


@dataclass(frozen=True)
class Side:
    """A server that answers at `path` of `port`."""

    name: str
    port: int
    path: str = "/embed"


def install() -> dict[str, str]:
    """Makes the peers' environment where it is not there yet; the versions in it."""
    wanted = [*REQUIRED, f"onnxruntime=={version('onnxruntime')}"]
    stamp = PEERS / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != wanted:
        shutil.rmtree(PEERS, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        pip = [str(PEERS / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        stamp.write_text(json.dumps(wanted))
    return dict(each.split("==") for each in REQUIRED[:2])


@contextlib.contextmanager
def all_sides(folder: Path, core: int) -> Iterator[list[Side]]:
    """Torpor with the service as it is and with a copy that does not batch, then its peers; all on `core`."""
    plain = unbatched(folder)
    with contextlib.ExitStack() as running, pinned(core):
        client = running.enter_context(started())
        port = int(client.url.rpartition(":")[2])
        for name, source in (("torpor", ROOT / "services" / "embedding"), ("unbatched", plain)):
            client.deploy(str(source), name=name, env={"TORPOR_PRECISION": "fp32"}, settings={"min_replicas": 1})
        sides = [Side(name, port, f"/endpoints/{name}/embed") for name in ("torpor", "unbatched")]
        for batch, name in ((True, "bentoml serve"), (False, "bentoml serve unbatched")):
            source = ROOT / "services" / "embedding" if batch else plain
            _, stock = running.enter_context(serving("fp32", source))
            sides.append(Side(name, stock))
        for name in ("litserve", "mosec"):
            own = free_port()
            running.enter_context(peer(name, own))
            sides.append(Side(name, own))
        for side in sides:
            first_answer(side)
        yield sides


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What this process starts meanwhile runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def unbatched(folder: Path) -> Path:
    """A copy of the embedding service whose method runs once a call."""
    copy = shutil.copytree(ROOT / "services" / "embedding", folder / "unbatched")
    text = (copy / "service.py").read_text()
    assert BATCHED in text, f"the service does not say {BATCHED} any more"
    (copy / "service.py").write_text(text.replace(f"({BATCHED})", ""))
    return copy


@contextlib.contextmanager
def peer(name: str, port: int) -> Iterator[None]:
    command = [str(PEERS / "bin" / "python"), "-m", f"bench.peers.{name}_server"]
    server = subprocess.Popen(
        command, cwd=ROOT, env=_environment(port), stdout=subprocess.DEVNULL, stderr=sys.stderr, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _environment(port: int) -> Mapping[str, str]:
    model = CACHE / "bentoml" / "models" / "minilm"
    own = {"PORT": str(port), "BATCH": str(BATCH), "MODEL": str(model / (model / "latest").read_text())}
    mosec = {
        "MOSEC_PORT": str(port),
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_TIMEOUT": "30000",
        "MOSEC_LOG_LEVEL": "error",
    }
    return {**os.environ, **own, **mosec, "PYTHONPATH": str(ROOT)}


def first_answer(side: Side) -> None:
    give_up = time.perf_counter() + _WITHIN
    while time.perf_counter() < give_up:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if post("127.0.0.1", side.port, side.path)[0] == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"{side.name} gave no answer within {_WITHIN:.0f} s\nLook at what it says above.")


def bound(core: int, items: int, seconds: float, text: str) -> float:
    """Items a second of the service's own method, called with `items` texts in a loop in a process of its own."""
    command = [str(BIN / "python"), "-m", "bench.peers.bound", str(items), str(seconds), text]
    with pinned(core):
        done = subprocess.run(
            command,
            check=True,
            cwd=ROOT,
            env={**os.environ, "TORPOR_PRECISION": "fp32"},
            capture_output=True,
            text=True,
        )
    return float(done.stdout.splitlines()[-1])
