"""A platform of the bench's own, and the exported model that it serves."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torpor import Client
from torpor.cli.platform import read_address

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
BIN = Path(sys.executable).parent


def conditions() -> dict[str, Any]:
    """What the figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in cpu() if line.startswith("model name")), platform.machine()
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "bentoml": version("bentoml"),
        "onnxruntime": version("onnxruntime"),
    }


def cpu() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def exported_model() -> None:
    """MiniLM in the model store of the checkout's cache, which this process and its children use from now on."""
    home = CACHE / "bentoml"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["BENTOML_HOME"] = str(home)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    if not (home / "models" / "minilm").is_dir():
        command = [sys.executable, "-P", "-m", "models", "minilm", "--name", "minilm"]
        subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)


@contextlib.contextmanager
def started(data: Path | None = None, **settings: str) -> Iterator[Client]:
    """A platform on a free port; `settings` are environment. `data`: its folder, else one that is removed then."""
    with contextlib.ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torpor-bench-")))
        environ = {**os.environ, **settings, "TORPOR_DATA": str(folder)}
        torpor = str(BIN / "torpor")
        subprocess.run([torpor, "up", "--detach", "--port", "0"], check=True, env=environ, stdout=sys.stderr)
        try:
            found = read_address(folder)
            assert found is not None, "the platform wrote no address"
            with Client(found["url"]) as client:
                yield client
        finally:
            subprocess.run([torpor, "down"], check=True, env=environ, stdout=sys.stderr)
