"""Sessions of exported models: opened from the graph tuned for this machine, on the providers that were asked for.

An artifact holds, for each precision, a portable graph (right on every CPU) and a tuned one (optimised, with
pre-packed weights that are memory-mapped), plus a card with the fingerprint of the machine it was tuned on:

    card.json  portable/<precision>/model.onnx  tuned/<precision>/model.onnx, model.onnx.data

Pre-packed weights follow the CPU's instruction set and the runtime's version. Where the fingerprint differs, the
portable graph is tuned anew into a cache folder, once, and opened from there: a tuned graph is never loaded on a
machine that it was not made for.

Importing this module is light: onnxruntime is imported by the first call that needs it.
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
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torpor.errors import ModelNotFound, ProviderMissing

if TYPE_CHECKING:
    import onnxruntime

Opened = tuple["onnxruntime.InferenceSession", dict[str, Any]]

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
_opened: list[dict[str, Any]] = []
_early: dict[Asked, Future[Opened | None]] = {}


class Asked(NamedTuple):
    """What `open_session` was asked for."""

    folder: str
    precision: str
    providers: tuple[str, ...]
    fallback: bool
    threads: int


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


def open_session(
    model: StoredModel | str | os.PathLike[str],
    precision: str = "int8",
    providers: Sequence[str] | None = None,
    fallback: bool = False,
    threads: int | None = None,
) -> onnxruntime.InferenceSession:
    """Opens `precision` of a model on `providers`, the CPU when None, with `threads` intra-op threads, one when None.

    Small models answer fastest with one thread, and only a session without a thread pool survives a fork.
    Blocks; some 20 ms for a small encoder, seconds at the first opening on a machine the graph was not tuned for.
    Raises ModelNotFound when the artifact or the precision is not there, and ProviderMissing when a wanted provider
    is not active and the caller declared no `fallback`.
    """
    folder = model if isinstance(model, str | os.PathLike) else model.path
    asked = Asked(os.fspath(folder), precision, tuple(providers or (CPU,)), fallback, threads or 1)
    early = _early.pop(asked, None)
    session, facts = (early.result() if early else None) or _open(asked)
    _opened.append(facts)
    return session


def open_early(sessions: Iterable[dict[str, Any]]) -> None:
    """Starts to open sessions, each in a thread, that `open_session` will be asked for: `opened()` of an earlier start.

    The runtime leaves the interpreter's lock to others meanwhile, so a service is imported at the same time. One that
    cannot be opened is opened again by who asks for it, and fails there.
    """
    for facts in sessions:
        asked = Asked(facts["folder"], facts["precision"], tuple(facts["wanted"]), facts["fallback"], facts["threads"])
        _early[asked] = Future()
        Thread(target=_run_early, args=(asked, _early[asked]), daemon=True).start()


def forget_early() -> None:
    """Lets go of sessions that nobody asked for."""
    _early.clear()


def opened() -> list[dict[str, Any]]:
    """Facts of the sessions that this process has opened, oldest first: provider, threads, precision, fingerprint."""
    return [dict(facts) for facts in _opened]


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


def cache_folder() -> Path:
    """Where graphs tuned for this machine are kept: $TORPOR_CACHE, else torpor's folder in the user's cache."""
    if own := os.environ.get("TORPOR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torpor"


def _run_early(asked: Asked, answer: Future[Opened | None]) -> None:
    try:
        answer.set_result(_open(asked))
    except Exception:  # the edge of a thread: see `open_early`
        answer.set_result(None)


def _open(asked: Asked) -> Opened:
    import onnxruntime

    began = time.perf_counter()
    folder, wanted = Path(asked.folder), list(asked.providers)
    card = read_card(folder)
    if asked.precision not in card["precisions"]:
        raise ModelNotFound(
            f"{folder} holds no {asked.precision} graph, only {', '.join(card['precisions'])}.\n"
            f"Ask for one of these, or export the model again with --precision {asked.precision}."
        )
    usable = _usable(wanted, asked.fallback)
    options = session_options(asked.threads)
    tuned = usable == [CPU]
    graph, matched = _portable(folder, asked.precision), True
    if tuned:  # it is optimised already; other providers optimise the portable graph for themselves
        graph, matched = _tuned_graph(folder, card, asked.precision)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(graph), options, providers=usable)
    active = session.get_providers()
    _check(wanted, active, asked.fallback)
    facts = {
        "model": f"{folder.parent.name}:{folder.name}",
        "folder": asked.folder,
        "precision": asked.precision,
        "provider": active[0],
        "providers": active,
        "wanted": wanted,
        "fallback": asked.fallback,
        "threads": asked.threads,
        "tuned": tuned,
        "fingerprint_match": matched,
        "seconds": round(time.perf_counter() - began, 4),
    }
    return session, facts


def _portable(folder: Path, precision: str) -> Path:
    return folder / "portable" / precision / GRAPH


def _tuned_graph(folder: Path, card: dict[str, Any], precision: str) -> tuple[Path, bool]:
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
                _tune_into(_portable(folder, precision), ready)
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


def _usable(wanted: list[str], fallback: bool) -> list[str]:
    """The wanted providers that this runtime was built with, checked before a graph is loaded."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    _check(wanted, available, fallback)
    return [name for name in wanted if name in available] or [CPU]


def _check(wanted: list[str], active: list[str], fallback: bool) -> None:
    """A provider that is asked for and not active means slower answers that nobody sees: refuse it."""
    missing = [name for name in wanted if name not in active]
    if missing and not fallback:
        raise ProviderMissing(
            f"The execution provider {', '.join(missing)} is not active here; active: {', '.join(active)}.\n"
            "Install the runtime that has it (onnxruntime-gpu for CUDA and TensorRT), or declare the fallback with "
            "open_session(..., fallback=True)."
        )
    if missing:
        log.warning("wanted %s, running on %s", ", ".join(missing), ", ".join(active))
