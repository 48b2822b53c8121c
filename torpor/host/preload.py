"""Imports in the fork-server: done once, before any fork, and only where they start no thread."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

# What every replica needs, besides what its own service imports.
OWN = (
    "asyncio",
    "uvloop",
    "uvicorn.config",
    "uvicorn.server",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "bentoml",
    "_bentoml_sdk",
    "_bentoml_impl.server.app",
    "_bentoml_impl.client",
    "_bentoml_impl.client.proxy",
    "_bentoml_impl.serde",
    "_bentoml_impl.tasks",
    "bentoml._internal.service.loader",
    "bentoml._internal.log",
    "bentoml._internal.server.http.traffic",
    "bentoml._internal.runner.container",
    "anyio._backends._asyncio",
    "anyio.to_thread",
    "concurrent.futures.thread",
    "numpy",
    "prometheus_client.exposition",
    "prometheus_client.multiprocess",
    "prometheus_client.parser",
    "bentoml._internal.configuration.v1",
    "bentoml._internal.configuration.v2",
    "torpor.host.replica",
    "torpor.host.warm",
)
HOOK = "before_fork"  # what a module of ours has done once it is imported, and that starts no thread


def threads() -> int:
    """Threads of this process, those of native libraries included."""
    return len(os.listdir("/proc/self/task"))


def preload(modules: Sequence[str], rehearse: bool = True) -> tuple[list[str], dict[str, str]]:
    """Imports what can be imported without a thread: what was, and the reason for each that was not.

    A thread cannot be un-started, so a child tries first and says which modules are to be left out; that doubles the
    time. Without `rehearse` whoever asks looks for threads afterwards.
    """
    wanted = [name for name in modules if name not in sys.modules]
    skipped = _rehearse(wanted) if wanted and rehearse else {}
    done = []
    for name in wanted:
        if name in skipped:
            continue
        reason = _bring(name)
        if reason is None:
            done.append(name)
        else:
            skipped[name] = reason
    return done, skipped


def _bring(name: str) -> str | None:
    try:
        module = importlib.import_module(name)
        if name.startswith("torpor.") and hasattr(module, HOOK):
            getattr(module, HOOK)()
    except Exception as error:  # a module of somebody else's may raise anything: it is imported by the replica then
        return f"{type(error).__name__}: {error}"
    return None


def _rehearse(modules: Sequence[str]) -> dict[str, str]:
    """Imports the modules in a child; those at whose import it got a thread, or died, with the reason.

    After a thread the child is of no use for those that follow: the next child goes on without the offender.
    """
    skipped: dict[str, str] = {}
    left = list(modules)
    while left:
        told, ended = _in_child(left)
        for name, reason in told.items():
            if reason is not None:
                skipped[name] = reason
        left = left[len(told) :]
        if left and ended:
            skipped[left[0]] = ended
            left = left[1:]
    return skipped


def _in_child(modules: Sequence[str]) -> tuple[dict[str, str | None], str]:
    """What a child found out, module by module until the first thread, and how it ended where that was no exit."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _rehearsal(modules, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        told = dict(json.loads(line) for line in lines)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return told, "" if status == 0 else f"importing it ended a process with status {status}"


def _rehearsal(modules: Sequence[str], writing: int) -> None:
    status = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        before = threads()
        for name in modules:
            reason = _bring(name)
            threaded = threads() > before
            if threaded:
                reason = "it starts a thread when it is imported"
            os.write(writing, json.dumps([name, reason]).encode() + b"\n")
            if threaded:
                break
        status = 0
    finally:
        os._exit(status)
