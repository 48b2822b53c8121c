"""Sessions of exported models: opened on the providers that were asked for, quickly where a caller waits."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakSet

from torpor.errors import ModelNotFound, ProviderMissing
from torpor.onnx.artifact import CPU, StoredModel, portable_graph, read_card, session_options, tuned_graph

if TYPE_CHECKING:
    import onnxruntime

PACKING = "torpor-packing"  # the thread that packs
PACK_AFTER = 0.05  # seconds after the first run: its answer is sent first, with the interpreter's lock to itself

REHEARSED = (1, 16)  # the first and every other size of a rehearsal's inputs, where the graph leaves them open
TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32", "tensor(float16)": "float16"}

log = logging.getLogger("torpor.onnx")
_opened: list[dict[str, Any]] = []
_early: dict[Asked, Future[Session | None]] = {}
_claimed: WeakSet[Session] = WeakSet()


class Asked(NamedTuple):
    """What `open_session` was asked for."""

    folder: str
    precision: str
    providers: tuple[str, ...]
    fallback: bool
    threads: int


class Session:
    """An open graph: `run` and all else that onnxruntime's InferenceSession has.

    The CPU's kernels read weights in a packed form. onnxruntime 1.32 packs them anew at every opening, also where the
    file holds them packed (it compares, then maps): of MiniLM's opening half in int8 and two thirds in fp32. A session
    that was opened in a hurry is not packed: its first run takes half as long again (int8) or twice as long (fp32,
    with differences of 1e-6), and behind that run the packed one is opened and takes its place. So is, in a
    template's fork, one with all its threads.
    """

    held: ClassVar[bool] = False  # this process is to be forked: nothing may start a thread

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        facts: dict[str, Any],
        packed: Callable[[], onnxruntime.InferenceSession] | None = None,
    ) -> None:
        self.facts = facts
        self._session = session
        self._packed = packed
        self._taking = Lock()

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """The outputs named, or all of them, in order. Any thread may call it, several at once."""
        outputs: list[Any] = self._session.run(output_names, input_feed, run_options)
        if self._packed is not None and not Session.held:
            self.finish()
        return outputs

    def rehearse(self) -> None:
        """Raises what the runtime raises where such inputs are not what the graph takes."""
        import numpy

        feed = {}
        for each in self._session.get_inputs():
            shape = [size if isinstance(size, int) else REHEARSED[min(k, 1)] for k, size in enumerate(each.shape)]
            feed[each.name] = numpy.ones(shape, TYPES[each.type])
        self._session.run(None, feed)

    def finish(self) -> Thread | None:
        """Starts to open the packed session where that is still to be done; the thread that does it."""
        with self._taking:
            packed, self._packed = self._packed, None
        if packed is None:
            return None
        thread = Thread(target=self._finish, args=(packed,), name=PACKING, daemon=True)
        thread.start()
        return thread

    def _finish(self, packed: Callable[[], onnxruntime.InferenceSession]) -> None:
        time.sleep(PACK_AFTER)
        try:
            self._session = packed()  # the other one lives until its last run has ended
        except Exception:  # the edge of a thread: the session that is there goes on answering
            log.exception("the packed session could not be opened; answers stay slower")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def open_session(
    model: StoredModel | str | os.PathLike[str],
    precision: str = "int8",
    providers: Sequence[str] | None = None,
    fallback: bool = False,
    threads: int | None = None,
) -> Session:
    """Opens `precision` of a model on `providers`, the CPU when None, with `threads` intra-op threads.

    None: as many as the endpoint's `threads` setting gives a replica ($TORPOR_THREADS), one elsewhere. Small models
    answer fastest with one thread. Only a session without a thread pool survives a fork: in a template it is opened
    with one, and with all of them behind the first answer.
    Blocks; some 20 ms for a small encoder, seconds at the first opening on a machine the graph was not tuned for.
    Raises ModelNotFound when the artifact or the precision is not there, and ProviderMissing when a wanted provider
    is not active and the caller declared no `fallback`.
    """
    folder = model if isinstance(model, str | os.PathLike) else model.path
    asked = Asked(os.fspath(folder), precision, tuple(providers or (CPU,)), fallback, threads or _threads())
    early = _early.pop(asked, None)
    session = (early.result() if early else None) or _open(asked, hurried=False)
    _opened.append(session.facts)
    _claimed.add(session)
    return session


def open_early(sessions: Iterable[dict[str, Any]]) -> None:
    """Starts to open sessions, each in a thread, that `open_session` will be asked for: `opened()` of an earlier start.

    A caller waits, so they are opened in a hurry. The runtime leaves the interpreter's lock to others meanwhile, so a
    service is imported at the same time. One that cannot be opened is opened again by who asks for it, and fails there.
    """
    for facts in sessions:
        asked = Asked(facts["folder"], facts["precision"], tuple(facts["wanted"]), facts["fallback"], facts["threads"])
        _early[asked] = Future()
        Thread(target=_run_early, args=(asked, _early[asked]), daemon=True).start()


def forget_early() -> None:
    """Lets go of sessions that nobody asked for."""
    _early.clear()


def finish_hurried() -> None:
    """Has the sessions packed that were opened in a hurry and not run yet. Returns at once."""
    for session in list(_claimed):
        session.finish()


def hold() -> None:
    """In a process that is to be forked: sessions are opened with one thread, and none is started behind them."""
    Session.held = True


def release() -> None:
    """In the fork: what was held back is done behind the first answers."""
    Session.held = False


def rehearse() -> None:
    """Runs each session once on a row of ones, so that the memory of a run is there when a caller comes."""
    for session in list(_claimed):
        try:
            session.rehearse()
        except Exception:  # a graph that wants other inputs: its first caller waits a few milliseconds longer
            log.debug("a session could not be rehearsed", exc_info=True)


def opened() -> list[dict[str, Any]]:
    """Facts of the sessions that this process has opened, oldest first: provider, threads, precision, fingerprint."""
    return [dict(facts) for facts in _opened]


def _threads() -> int:
    text = os.environ.get("TORPOR_THREADS", "1")
    return max(1, int(text)) if text.isdigit() else 1


def _run_early(asked: Asked, answer: Future[Session | None]) -> None:
    try:
        answer.set_result(_open(asked, hurried=True))
    except Exception:  # the edge of a thread: see `open_early`
        answer.set_result(None)


def _open(asked: Asked, hurried: bool) -> Session:
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
    tuned = usable == [CPU]
    graph, matched = portable_graph(folder, asked.precision), True
    if tuned:
        graph, matched = tuned_graph(folder, card, asked.precision)

    held = Session.held and asked.threads > 1

    def packed(pack: bool = True, threads: int = asked.threads) -> onnxruntime.InferenceSession:
        options = session_options(threads)
        if tuned:  # it is optimised already; other providers optimise the portable graph for themselves
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not pack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        return onnxruntime.InferenceSession(str(graph), options, providers=usable)

    hurried = hurried and tuned
    session = packed(pack=not hurried, threads=1 if held else asked.threads)
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
    return Session(session, facts, packed if hurried or held else None)


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
