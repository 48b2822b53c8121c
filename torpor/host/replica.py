"""A replica's life after the fork: descriptors, service, readiness, calls, the end."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import io
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import uvloop
from bentoml._internal.utils.uri import join_paths
from uvicorn.config import Config
from uvicorn.server import ServerState

from torpor.host import packet
from torpor.host.factory import Factory
from torpor.host.hooks import on_deployment
from torpor.host.lane import Lane
from torpor.host.line import Line, State
from torpor.host.service import (
    Unservable,
    compile_sources,
    facts,
    finish_sessions,
    last_lines,
    learned,
    load,
    log_to_stdout,
    open_early,
    open_task_store,
)

FINISH_AFTER = 1.0  # seconds from readiness, when the calls that waited for it have their answers
KEEP_ALIVE = 3600  # seconds; the router closes idle lines, so that it never writes into one that is being closed


class Replica:
    """`asked` is the monotonic instant of the fork request; `run` returns the exit status."""

    def __init__(self, spec: dict[str, Any], listener: int, control: int, log: int, asked: float) -> None:
        self._spec = spec
        self._listener = socket.socket(fileno=listener)
        self._control = socket.socket(fileno=control)
        self._log = log
        self._phases: dict[str, float] = {"fork": time.monotonic() - asked}
        self._mark = time.monotonic()
        self._stopping: asyncio.Event | None = None
        self._was_ready = False

    def run(self, made: Factory | None = None) -> int:
        """Serves until the router ends it. 0 after a drained stop, 1 when it could not start.

        `made`: a service that a template has made already.
        """
        os.setsid()
        take_log(self._log)
        before = set(sys.modules)
        set_environment(self._spec)
        try:
            if made is not None:
                uvloop.run(self._serve(made, before))
                return 0
            open_early(self._spec.get("sessions", ()))
            log_to_stdout()
            first = self._spec["learn"]
            service = load(self._spec["target"], self._spec["folder"], self._spec.get("bento"), proven=not first)
            if first:
                on_deployment(service)
                compile_sources(self._spec["folder"])
            open_task_store(service)
            self._phase("import")
            uvloop.run(self._serve(Factory(service), before))
        except (Exception, SystemExit) as error:  # the edge of the process: what the service raised ends its start
            traceback.print_exc()
            if not self._was_ready:
                self._failed(error)
            return 1
        return 0

    def _phase(self, name: str) -> None:
        now = time.monotonic()
        self._phases[name], self._mark = now - self._mark, now

    async def _serve(self, factory: Factory, before: set[str]) -> None:
        self._stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control.fileno(), self._router_spoke)
        lane = Lane(factory, self._busy)
        async with factory.lifespan(lane):
            # Before, TERM ends the process at once: a service that is being made has nothing to drain.
            loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
            while not await factory.ready():  # asked until the router, which bounds the wait, stops it
                if self._stopping.is_set():
                    return
                await asyncio.sleep(0.02)
            self._phase("load")
            state, server = await self._listen(lane)
            self._phase("app")
            self._ready(factory, before)
            loop.call_later(FINISH_AFTER, finish_sessions)
            await self._stopping.wait()
            server.close()
            await drained(state)

    async def _listen(self, lane: Lane) -> tuple[ServerState, asyncio.AbstractServer]:
        config = Config(
            lane,
            loop="none",
            http=Line,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        config.load()
        state = State(config.encoded_headers)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(functools.partial(Line, config, state, lane), sock=self._listener)
        return state, server

    def _ready(self, factory: Factory, before: set[str]) -> None:
        spec, service = self._spec, factory.service
        self._say(
            ev="ready",
            phases=self._phases,
            schema=service.schema() if spec["learn"] else {},
            facts={**facts(), "path_prefix": join_paths(service.path_prefix).rstrip("/")},
            modules=learned(spec["folder"], before) if spec["learn"] else [],
            in_flight_limit=factory.in_flight_limit,
        )
        self._was_ready = True

    def _failed(self, error: Exception | SystemExit) -> None:
        sys.stderr.flush()
        log = Path("/proc/self/fd/2").resolve()
        self._say(ev="failed", error=sentence(error), log=last_lines(log), code="start_failed")

    def _busy(self, tasks: int) -> None:
        self._say(ev="busy", tasks=tasks)

    def _say(self, **told: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the router is gone: EOF says so too
            packet.send(self._control, told)

    def _router_spoke(self) -> None:
        try:
            gone = not self._control.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            gone = True
        if gone and self._stopping is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._stopping.set()


async def drained(state: ServerState) -> None:
    """Returns when every call has ended; idle lines are closed at once."""
    for line in list(state.connections):
        line.shutdown()  # closes an idle line, and marks a busy one to be closed after its answer
    while state.tasks:
        await asyncio.wait(tuple(state.tasks))


def sentence(error: Exception | SystemExit) -> str:
    """Why a service could not be started, on one line."""
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return f"it called sys.exit({'' if error.code is None else error.code})"
    said = (str(error).strip() or "no message").splitlines()[0]
    return said if isinstance(error, (Unservable, SystemExit, packet.TooLong)) else f"{type(error).__name__}: {said}"


def take_log(log: int) -> None:
    """What the process prints goes to its log, line by line, and so does its stack if a signal kills it.

    It reads nothing.
    """
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # to a file it would keep 8 KiB back, and lose them when it is killed
            stream.reconfigure(line_buffering=True)
    faulthandler.enable()
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    os.close(quiet)


def set_environment(spec: dict[str, Any]) -> None:
    os.environ.update(spec["env"])
    os.environ.pop("BENTOCLOUD_DEPLOYMENT_URL", None)  # it would send self-calls elsewhere
    os.makedirs(spec["run_folder"], exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ["prometheus_multiproc_dir"] = spec["run_folder"]  # noqa: SIM112 - its name
    os.environ.setdefault("BENTOML_RESULT_STORE", str(Path(spec["state_folder"]) / "tasks.db"))
