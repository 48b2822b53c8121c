"""The real MiniLM, exported once into the checkout's cache and reused by every later run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HOME = REPOSITORY / ".cache" / "bentoml"


def minilm_environment() -> dict[str, str]:
    """Environment of a process that finds minilm:latest in the model store; exports it when it is not there."""
    environment = os.environ | {
        "BENTOML_HOME": str(HOME),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "models", "minilm", "--name", "minilm", "--progress", "none"]
    HOME.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return environment


def minilm_folder() -> Path:
    """The artifact's folder; `minilm_environment` has been called."""
    models = HOME / "models" / "minilm"
    return models / (models / "latest").read_text()
