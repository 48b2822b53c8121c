"""The upload of a model of 1 GB, beside `cp` and `sha256sum` of the same file on the same disk; its memory."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import httpx

from bench.platform import started
from bench.table import Row

MB = 1 << 20
SIZE = 1 << 30  # bytes of the model
SHARE = 0.7  # of the peer's speed
MEMORY = 64 * MB  # bytes over rest
WITHIN = 600.0  # seconds of one request
MODELS = "/api/v1/model_repositories/big/models"
SAID = {
    "version": "1",
    "description": "",
    "manifest": {"module": "", "api_version": "", "bentoml_version": "", "size_bytes": SIZE},
}


def uploaded(rounds: int) -> list[Row]:
    """The whole of an upload: received, hashed, looked into, on the disk (fsync), written down, answered."""
    ours, peer, grown = [], [], []
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder, started() as client:
        tar = model(Path(folder))
        status = client.status()
        pid, data = int(status["pid"]), Path(str(status["data"]))
        with httpx.Client(base_url=client.url, timeout=WITHIN) as http:
            http.post("/api/v1/model_repositories", json={"name": "big", "description": ""}).raise_for_status()
            http.post(MODELS, json=SAID).raise_for_status()
            for turn in range(rounds):
                print(f"upload {turn + 1} of {rounds}", file=sys.stderr)
                shutil.rmtree(data / "depot", ignore_errors=True)  # else the bytes are there already
                peer.append(copied(tar, Path(folder, "copy")))
                rest = resident(pid)
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
                ours.append(sent(http, tar))
                grown.append(peak(pid) - rest)
    took, other = statistics.median(ours), statistics.median(peer)
    speed = f"{SIZE / MB / took:.0f} MB/s"
    return [
        Row.of("upload of a 1 GB model", f"{took:.2f} s", f"cp, sha256sum: {other:.2f} s", other / took, SHARE, speed),
        Row(
            "the router's memory over rest, at its peak",
            f"{max(grown) / MB:.1f} MB",
            "",
            f"under {MEMORY // MB} MB",
            None,
            None,
            max(grown) < MEMORY,
        ),
    ]


def model(folder: Path) -> Path:
    """A tar as `bentoml models push` sends it, of bytes that nothing compresses."""
    source = folder / "model"
    source.mkdir()
    (source / "model.yaml").write_text("name: big\nversion: '1'\nmodule: ''\n")
    with (source / "weights.bin").open("wb") as file:
        for _ in range(SIZE // MB):
            file.write(os.urandom(MB))
    with tarfile.open(folder / "model.tar", "w") as tar:
        tar.add(source, arcname="./")
    shutil.rmtree(source)
    return folder / "model.tar"


def copied(tar: Path, to: Path) -> float:
    """Seconds. Without waiting for the disk, which an upload does wait for."""
    began = time.perf_counter()
    subprocess.run(["cp", str(tar), str(to)], check=True)
    subprocess.run(["sha256sum", str(to)], check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    to.unlink()
    return took


def sent(http: httpx.Client, tar: Path) -> float:
    """Seconds."""
    began = time.perf_counter()
    with tar.open("rb") as file:
        http.put(f"{MODELS}/1/upload", content=file).raise_for_status()
    return time.perf_counter() - began


def resident(pid: int) -> int:
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    """proc(5), status, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
