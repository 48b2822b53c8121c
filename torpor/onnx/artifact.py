"""What an exported model is on disk, and the graph of it that is right for this machine.

An artifact holds, for each precision, a portable graph (right on every CPU) and a tuned one (optimised, with
pre-packed weights that are memory-mapped), plus a card with the fingerprint of the machine it was tuned on:

    card.json  portable/<precision>/model.onnx  tuned/<precision>/model.onnx, model.onnx.data

Pre-packed weights follow the CPU's instruction set and the runtime's version. Where the fingerprint differs, the
portable graph is tuned anew into a cache folder, once, and opened from there: a tuned graph is never loaded on a
machine that it was not made for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torpor.errors import ModelNotFound

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
CARD = "card.json"
GRAPH = "model.onnx"

# What MLAS looks at when it picks kernels and packs weights (onnxruntime/core/mlas/lib/platform.cpp).
# fmt: off
PACKING_FLAGS = frozenset((
    "sse4_1", "avx", "avx2", "avx_vnni", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl",
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp",
    "fphp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2",
))
# fmt: on
TUNED_MIN_BYTES = "1024"  # smaller initialisers stay inside the graph file


# Official builds start a telemetry thread at import and send events to their maker; a process with that thread cannot
# fork safely. Set before any import of onnxruntime below; a user who wants it sets 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

log = logging.getLogger("torpor.onnx")


class StoredModel(Protocol):
    """The part of `bentoml.Model` that a session needs."""

    @property
    def path(self) -> str: ...


def cpu_flags() -> frozenset[str]:
    """This CPU's instruction sets, as far as they decide how weights are packed. Empty where the kernel lists none."""
    try:
        # The first processor's block is enough, and a read of the whole file costs milliseconds a core.
        with open("/proc/cpuinfo", "rb", buffering=0) as cpuinfo:
            head = cpuinfo.read(8192).decode("ascii", "replace")
    except OSError:
        return frozenset()
    for line in head.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return PACKING_FLAGS.intersection(value.split())
    return frozenset()


def fingerprint() -> str:
    """What a tuned graph depends on: the runtime's version, the architecture, the CPU's instruction sets."""
    import onnxruntime

    flags = " ".join(sorted(cpu_flags()))
    return f"onnxruntime {onnxruntime.__version__} {platform.system().lower()} {platform.machine()} {flags}".strip()


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an exported model. Raises ModelNotFound when the folder is not one."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_bytes())
    except FileNotFoundError:
        raise ModelNotFound(
            f"{folder} is not a model that torpor exported: it has no {CARD}.\n"
            "Export it with `torpor export`, then name its tag, as `bentoml models list` shows it."
        ) from None
    return card


def session_options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # the warning that a tuned graph is tied to this machine; the fingerprint sees to it
    return options


def tune(portable: Path, tuned: Path) -> None:
    """Writes the optimised form of a graph, with external pre-packed weights, into the new folder `tuned`."""
    import onnxruntime

    tuned.mkdir(parents=True)
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tuned / GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", GRAPH + ".data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", TUNED_MIN_BYTES)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(str(portable), options, providers=[CPU])


def portable_graph(folder: Path, precision: str) -> Path:
    return folder / "portable" / precision / GRAPH


def tuned_graph(folder: Path, card: dict[str, Any], precision: str) -> tuple[Path, bool]:
    """The graph tuned for this machine, and whether it is the artifact's own."""
    here = fingerprint()
    own = folder / "tuned" / precision / GRAPH
    if card["fingerprint"] == here and own.exists():
        return own, True
    name = hashlib.sha256(f"{json.dumps(card, sort_keys=True)}|{precision}|{here}".encode()).hexdigest()[:32]
    graphs = cache_folder() / "graphs"
    ready = graphs / name
    if not ready.is_dir():
        log.warning("%s was tuned for [%s]; tuning it for this machine [%s]", folder, card["fingerprint"], here)
        graphs.mkdir(parents=True, exist_ok=True)
        with _locked(graphs / f"{name}.lock"):
            if not ready.is_dir():
                _tune_into(portable_graph(folder, precision), ready)
    return ready / GRAPH, False


def _tune_into(portable: Path, ready: Path) -> None:
    """Tunes beside `ready` and renames: a killed process leaves no half-written graph under the final name."""
    work = Path(tempfile.mkdtemp(prefix=f"{ready.name}.part-", dir=ready.parent))
    try:
        tune(portable, work / "graph")
        (work / "graph").rename(ready)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel gives the lock back when its holder dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whoever holds the lock is the only writer: what a killed one left behind is rubbish.
        for stale in path.parent.glob(f"{path.stem}.part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield


def cache_folder() -> Path:
    """Where graphs tuned for this machine are kept: $TORPOR_CACHE, else torpor's folder in the user's cache."""
    if own := os.environ.get("TORPOR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torpor"
