"""What a graph costs: time to open, latency, memory; measured in a process of its own, as a replica would have it.

`python -m models.measure FOLDER PRECISION` prints one JSON object: seconds and bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from models.candidate import open_candidate
from models.reference import PROBE, ROUNDS
from torpor.errors import ExportRefused


def measure(folder: Path, precision: str) -> dict[str, float]:
    """Runs `cost` in a fresh process. Raises ExportRefused when the graph cannot be opened and run there."""
    command = [sys.executable, "-P", "-c", _CHILD, str(Path(__file__).parents[1]), str(folder), precision]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if child.returncode:
        last = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise ExportRefused(
            f"The {precision} graph does not run in a fresh process: {last[0]}\n"
            "Export with --precision fp32, or with another version of onnxruntime."
        )
    found: dict[str, float] = json.loads(child.stdout)
    return found


# The application tree is put on the path by hand: `-m` would look for it in the caller's working directory.
_CHILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); from models.measure import main; main()"


def cost(folder: Path, precision: str) -> dict[str, float]:
    """Opens the graph and runs the probe text. Memory is what opening and running added: PSS and anonymous."""
    import onnxruntime  # noqa: F401 - imported before the clock starts: a replica inherits it from its fork-server
    import tokenizers  # noqa: F401

    before = memory()
    began = time.perf_counter()
    candidate = open_candidate(folder, precision)
    opened = time.perf_counter() - began
    probe = (PROBE, PROBE) if candidate.card["task"] == "text-ranking" else PROBE
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        candidate.answer([probe])
        times.append(time.perf_counter() - began)
    after = memory()
    return {
        "open": round(opened, 4),
        "first_run": round(times[0], 5),
        "latency_p50": round(float(np.median(times)), 5),
        "memory": after.get("Pss", 0) - before.get("Pss", 0),
        "anonymous": after.get("Anonymous", 0) - before.get("Anonymous", 0),
    }


def memory() -> dict[str, int]:
    """This process's memory in bytes, as the kernel tells it; empty where it does not."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


def main() -> None:
    json.dump(cost(Path(sys.argv[1]), sys.argv[2]), sys.stdout)


if __name__ == "__main__":
    main()
