"""What the engine relies on in a launcher: the same contract for processes of this machine and for the fake."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest
import uvloop

from router.core.events import Event, Exited, Failed, Kept, Ready, Unkept
from router.launch import process
from router.launch.logs import Logs
from router.launch.orphans import born
from router.launch.process import ProcessLauncher
from router.shell.plan import Launching, Plan
from tests.shell.fakes.launcher import NOWHERE, FakeLauncher
from torpor.errors import InternalError

PATIENCE = 60.0  # seconds until a scenario that hangs is a failure

SERVICE = """
import os, signal, subprocess, threading, time
import bentoml

@bentoml.service
class Good:
    @bentoml.api
    def hi(self) -> str:
        return "hi"

@bentoml.service
class Broken:
    def __init__(self) -> None:
        1 / 0

@bentoml.service
class Slow:
    def __init__(self) -> None:
        print("loads for ever", flush=True)
        time.sleep(3600)

@bentoml.service
class Stubborn:
    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

@bentoml.service
class Threaded:
    def __init__(self) -> None:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()

@bentoml.service
class Parent:
    def __init__(self) -> None:
        child = subprocess.Popen(["sleep", "3600"])
        print("child", child.pid, flush=True)
"""


class Heard(list[Event]):
    """What a launcher told of its replicas."""

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]

    async def until(self, kind: type[Event]) -> Any:
        while not (found := self.of(kind)):  # noqa: ASYNC110 - what is waited for is told by a plain callback
            await asyncio.sleep(0.002)
        return found[-1]


class Stage(Protocol):
    """A launcher, and what a test needs around it."""

    @property
    def launcher(self) -> Launching: ...

    def plan(self, kind: str, **rest: Any) -> Plan: ...

    def kill(self, replica: str) -> None: ...

    def log(self, replica: str) -> str: ...


class FakeStage:
    def __init__(self) -> None:
        self.launcher = FakeLauncher()

    def plan(self, kind: str, **rest: Any) -> Plan:
        return Plan(**{"folder": Path("/src"), "python": Path("/usr/bin/python"), **common(kind), **rest})

    def kill(self, replica: str) -> None:
        self.launcher.kill(replica)

    def log(self, replica: str) -> str:
        return "loads for ever"


class RealStage:
    """The platform's own launcher, in a folder of its own whose path is longer than a socket's may be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ("deep" * 30)
        (self.folder / "src").mkdir(parents=True)
        (self.folder / "src" / "service.py").write_text(SERVICE)
        self.launcher = ProcessLauncher(self.folder, Logs(self.folder / "logs"))

    def plan(self, kind: str, **rest: Any) -> Plan:
        python = Path(sys.executable)
        return Plan(**{"folder": self.folder / "src", "python": python, "learn": True, **common(kind), **rest})

    def kill(self, replica: str) -> None:
        os.kill(int(self.launcher.said(replica)["pid"]), signal.SIGKILL)

    def log(self, replica: str) -> str:
        return (self.folder / "logs" / "e" / f"{replica}.log").read_text()

    def left(self) -> list[str]:
        """What is left of replicas in the folder of what runs."""
        return sorted(p.name for p in (self.folder / "run").iterdir() if not p.name.startswith("forkserver"))


def common(kind: str) -> dict[str, Any]:
    return {"endpoint": "e", "revision": 1, "bento": None, "target": f"service:{kind}"}


Play = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """One event loop for all: the fork-server's imports are paid once."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda scenario: runner.run(asyncio.wait_for(scenario, PATIENCE))


@pytest.fixture(scope="module")
def processes(play: Play) -> Iterator[RealStage]:
    with TemporaryDirectory() as folder:
        stage = RealStage(Path(folder))
        stage.launcher.open()
        yield stage
        play(stage.launcher.close())
        assert list((stage.folder / "run").iterdir()) == []


@pytest.fixture(params=["fake", "processes"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
    else:
        real: RealStage = request.getfixturevalue("processes")
        yield real
        assert real.left() == [], "every test ends what it started"


def test_a_replica_exists_when_start_returns_and_says_that_it_is_ready(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.prepare(stage.plan("Good"))
        await stage.launcher.start("e-1-a", stage.plan("Good"), heard.append)
        assert stage.launcher.said("e-1-a")["pid"] > 0
        ready = await heard.until(Ready)
        assert (ready.replica, ready.limit) == ("e-1-a", None)
        assert ready.phases["fork"] > 0
        said = stage.launcher.said("e-1-a")
        assert said["schema"]["name"] == "Good"
        assert set(said) >= {"modules", "facts", "phases", "pid"}
        await stage.launcher.stop("e-1-a", 20)
        assert heard[1:] == [Exited("e-1-a", 0, heard[-1].log)]  # type: ignore[union-attr]
        assert stage.launcher.said("e-1-a") == {}

    play(scenario())


def test_a_service_that_cannot_be_made_says_why_and_exits_after_that(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-b", stage.plan("Broken"), heard.append)
        await heard.until(Exited)
        failed, exited = heard
        assert isinstance(failed, Failed)
        assert "ZeroDivisionError: division by zero" in failed.reason
        assert any("1 / 0" in line for line in failed.log)
        assert (exited.replica, exited.status) == ("e-1-b", 1)  # type: ignore[union-attr]
        await stage.launcher.stop("e-1-b", 20)
        assert len(heard) == 2

    play(scenario())


def test_exited_is_told_once_and_before_stop_returns(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-c", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        await asyncio.gather(*(stage.launcher.stop("e-1-c", 20) for _ in range(3)))
        assert [exited.status for exited in heard.of(Exited)] == [0]

    play(scenario())


def test_a_stop_before_it_is_ready_ends_it_at_once(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-d", stage.plan("Slow"), heard.append)
        while "loads for ever" not in stage.log("e-1-d"):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.002)
        await stage.launcher.stop("e-1-d", 600)
        assert [(type(event), getattr(event, "status", None)) for event in heard] == [(Exited, -signal.SIGTERM)]

    play(scenario())


@pytest.mark.parametrize("within", [20, 0])
def test_a_stop_that_comes_while_the_start_is_under_way_waits_for_the_process_and_ends_it(
    play: Play, stage: Stage, within: float
) -> None:
    async def scenario() -> None:
        heard = Heard()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.launcher.start("e-1-e", stage.plan("Good"), heard.append))
            await asyncio.sleep(0)
            await stage.launcher.stop("e-1-e", within)
            assert len(heard.of(Exited)) == 1
        await asyncio.sleep(0)
        assert len(heard.of(Exited)) == 1
        assert stage.launcher.said("e-1-e") == {}

    play(scenario())


def test_one_that_does_not_hear_term_is_killed_when_its_time_is_over(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-f", stage.plan("Stubborn"), heard.append)
        await heard.until(Ready)
        await stage.launcher.stop("e-1-f", 0.2)
        assert [exited.status for exited in heard.of(Exited)] == [-signal.SIGKILL]

    play(scenario())


def test_a_kill_from_outside_is_told_with_its_signal(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-g", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        stage.kill("e-1-g")
        assert (await heard.until(Exited)).status == -signal.SIGKILL
        await stage.launcher.stop("e-1-g", 20)
        assert len(heard.of(Exited)) == 1

    play(scenario())


def test_stopping_what_never_was_returns_at_once(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        await stage.launcher.stop("nobody", 600)
        assert stage.launcher.said("nobody") == {}

    play(scenario())


def test_a_start_that_cannot_be_made_raises_and_tells_nothing(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        with pytest.raises(InternalError, match="cannot be run"):
            await stage.launcher.start("e-1-h", stage.plan("Good", python=NOWHERE), heard.append)
        await stage.launcher.stop("e-1-h", 600)
        assert heard == []
        await stage.launcher.start("e-1-i", stage.plan("Good"), heard.append)
        await heard.until(Ready)
        await stage.launcher.stop("e-1-i", 20)

    play(scenario())


# What only processes can show.


def test_a_replicas_socket_takes_connections_before_it_is_ready(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await processes.launcher.start("e-1-j", processes.plan("Slow"), heard.append)
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(processes.launcher.address("e-1-j"))
            early.send(b"GET /livez HTTP/1.1\r\nHost: e\r\n\r\n")
        await processes.launcher.stop("e-1-j", 20)
        assert processes.left() == []

    play(scenario())


def test_law_8_the_children_of_a_replica_end_with_it(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        for end in (processes.launcher.stop, killed):
            heard = Heard()
            replica = f"e-1-k-{end.__name__}"
            await processes.launcher.start(replica, processes.plan("Parent"), heard.append)
            await heard.until(Ready)
            child = int(processes.log(replica).partition("child ")[2].split()[0])
            assert born(child) is not None
            await end(replica, 20)
            await heard.until(Exited)
            await gone(child)

    async def killed(replica: str, within: float) -> None:
        processes.kill(replica)

    play(scenario())


def test_a_killed_fork_server_takes_its_replicas_along_and_the_next_start_makes_another(
    play: Play, processes: RealStage
) -> None:
    async def scenario() -> None:
        heard, slow = Heard(), Heard()
        await processes.launcher.start("e-1-l", processes.plan("Good"), heard.append)
        await processes.launcher.start("e-1-m", processes.plan("Slow"), slow.append)
        await heard.until(Ready)
        pids = [int(processes.launcher.said(replica)["pid"]) for replica in ("e-1-l", "e-1-m")]
        [server] = list(processes.launcher._servers.values())
        os.kill(server.pid, signal.SIGKILL)
        for told in (heard, slow):
            assert (await told.until(Exited)).status == -signal.SIGKILL
        assert [born(pid) for pid in pids] == [None, None], "exited is told when it is true"
        again = Heard()
        await processes.launcher.start("e-1-n", processes.plan("Good"), again.append)
        await again.until(Ready)
        await processes.launcher.stop("e-1-n", 20)
        assert len(heard.of(Exited)) == len(slow.of(Exited)) == 1

    play(scenario())


def test_a_fork_server_that_hangs_is_ended_and_with_it_the_start_that_waits_for_it(
    play: Play, processes: RealStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        await processes.launcher.prepare(processes.plan("Good"))
        [server] = list(processes.launcher._servers.values())
        os.kill(server.pid, signal.SIGSTOP)
        monkeypatch.setattr(process, "FORK_WITHIN", 0.05)
        heard = Heard()
        await processes.launcher.start("e-1-o", processes.plan("Good"), heard.append)
        assert [exited.status for exited in heard.of(Exited)] == [-signal.SIGKILL]
        await gone(server.pid)

    play(scenario())


def test_a_cancelled_start_of_a_fork_server_leaves_no_process(play: Play, tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = RealStage(tmp_path)
        stage.launcher.open()
        before = children_of_this()
        preparing = asyncio.ensure_future(stage.launcher.prepare(stage.plan("Good")))
        while not (new := children_of_this() - before):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.001)
        preparing.cancel()
        with suppress(asyncio.CancelledError):
            await preparing
        for pid in new:
            await gone(pid)
        await stage.launcher.close()
        assert list((stage.folder / "run").iterdir()) == []

    play(scenario())


def children_of_this() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


async def gone(pid: int) -> None:
    """A killed process leaves the table some time soon."""
    give_up = time.monotonic() + PATIENCE
    while born(pid) is not None:
        assert time.monotonic() < give_up, f"{pid} is still there"
        await asyncio.sleep(0.002)


def test_replicas_are_forked_from_a_template_which_ends_after_them(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        launcher, heard = stage.launcher, Heard()
        plan = stage.plan("Good", learn=False)
        keeping = asyncio.create_task(launcher.keep("e-1-t", plan, heard.append))
        kept = await heard.until(Kept)
        assert kept.template == "e-1-t"
        await launcher.start("e-1-a", plan, heard.append, "e-1-t")
        ready = await heard.until(Ready)
        assert "import" not in ready.phases, "its service was loaded before the fork"
        dropping = asyncio.create_task(launcher.drop("e-1-t"))
        await asyncio.sleep(0.05)
        assert not keeping.done(), "it is the parent of what still runs"
        await launcher.stop("e-1-a", 20)
        await dropping
        await keeping
        assert [type(event) for event in heard] == [Kept, Ready, Exited, Unkept]
        assert heard.of(Unkept) == [Unkept("e-1-t")]

    play(scenario())


def test_a_service_that_cannot_be_forked_says_why_and_leaves_no_template(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.keep("e-1-t", stage.plan("Threaded", learn=False), heard.append)
        assert heard == [Unkept("e-1-t", "it runs 2 threads once it is loaded")]

    play(scenario())


def test_a_template_that_is_dropped_before_it_was_made_is_not_made(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.drop("e-1-t")
        await stage.launcher.keep("e-1-t", stage.plan("Good", learn=False), heard.append)
        assert heard == [Unkept("e-1-t")]

    play(scenario())


def test_a_start_whose_template_is_gone_is_one_of_the_fork_server(play: Play, stage: Stage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await stage.launcher.start("e-1-a", stage.plan("Good"), heard.append, "e-1-gone")
        await heard.until(Ready)
        await stage.launcher.stop("e-1-a", 20)

    play(scenario())


def test_replicas_end_with_a_template_that_is_killed(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        launcher, heard = processes.launcher, Heard()
        plan = processes.plan("Good", learn=False)
        keeping = asyncio.create_task(launcher.keep("e-1-t", plan, heard.append))
        await heard.until(Kept)
        await launcher.start("e-1-a", plan, heard.append, "e-1-t")
        await heard.until(Ready)
        pid = launcher.pids()["e-1-a"]
        os.kill(launcher.pids()["e-1-t"], signal.SIGKILL)
        exited = await heard.until(Exited)
        await keeping
        assert exited.status == -signal.SIGKILL
        assert born(pid) is None
        assert processes.left() == []

    play(scenario())
