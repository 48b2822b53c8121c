"""What only processes can show of a launcher: sockets, children, fork-servers that die or hang."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from router.core.events import Exited, Kept, Ready, Unkept
from router.launch import children
from router.launch.forker import packets, pair
from router.launch.orphans import born
from tests.shell.fakes.launchers import Heard, Play, RealStage, gone
from torpor.errors import DiskFull
from torpor.host import forks, packet


def test_trap_5_a_replicas_socket_takes_connections_before_it_is_ready(play: Play, processes: RealStage) -> None:
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
        monkeypatch.setattr(children, "FORK_WITHIN", 0.05)
        heard = Heard()
        await processes.launcher.start("e-1-o", processes.plan("Good"), heard.append)
        assert [exited.status for exited in heard.of(Exited)] == [-signal.SIGKILL]
        await gone(server.pid)

    play(scenario())


def test_a_stop_is_seen_through_where_the_fork_server_does_not_say_that_its_replica_has_ended(
    play: Play, processes: RealStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may stop what it was forked by: its own user's."""

    async def scenario() -> None:
        heard = Heard()
        await processes.launcher.start("e-1-w", processes.plan("Good"), heard.append)
        await heard.until(Ready)
        [server] = list(processes.launcher._servers.values())
        os.kill(server.pid, signal.SIGSTOP)
        monkeypatch.setattr(children, "KILLED_WITHIN", 0.05)
        await processes.launcher.stop("e-1-w", 0.05)
        assert len(heard.of(Exited)) == 1
        await gone(server.pid)
        assert processes.left() == []

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


@pytest.mark.parametrize("loaded", [True, False])
def test_a_launcher_that_closes_over_a_template_leaves_nothing_of_it(play: Play, tmp_path: Path, loaded: bool) -> None:
    async def scenario() -> None:
        stage, heard = RealStage(tmp_path), Heard()
        stage.launcher.open()
        plan = stage.plan("Good" if loaded else "Slow", learn=False)
        keeping = asyncio.create_task(stage.launcher.keep("e-1-t", plan, heard.append))
        while "e-1-t" not in stage.launcher.pids():  # noqa: ASYNC110 - it is told by a plain callback
            await asyncio.sleep(0.002)
        if loaded:
            await heard.until(Kept)
        pid = stage.launcher.pids()["e-1-t"][0]
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        assert heard[-1] == Unkept("e-1-t")
        await stage.launcher.close()
        assert born(pid) is None
        assert list((stage.folder / "run").iterdir()) == []

    play(scenario())


def test_a_start_on_a_full_disk_says_so_and_leaves_nothing(
    play: Play, processes: RealStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, mode: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario() -> None:
        heard = Heard()
        plan = processes.plan("Good")
        await processes.launcher.prepare(plan)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "touch", full)
            with pytest.raises(DiskFull, match="No space left on device"):
                await processes.launcher.start("e-1-f", plan, heard.append)
            with pytest.raises(DiskFull, match="No space left on device"):
                await processes.launcher.keep("e-1-g", plan, heard.append)
        assert (processes.left(), heard) == ([], [])

    play(scenario())


def test_more_modules_than_a_sockets_packet_holds_are_learned_and_preloaded(play: Play, processes: RealStage) -> None:
    async def scenario() -> None:
        heard = Heard()
        await processes.launcher.start("e-1-m", processes.plan("Many"), heard.append)
        await heard.until(Ready)
        modules = processes.launcher.said("e-1-m")["modules"]
        assert len([name for name in modules if name.startswith("many.")]) == 24_000
        await processes.launcher.stop("e-1-m", 20)
        plan = processes.plan("Good", modules=tuple(modules))
        await processes.launcher.prepare(plan)
        [server] = processes.launcher._servers.values()
        assert len(server.ready["skipped"]) >= 24_000, "they are nowhere to be imported from"
        await processes.launcher.start("e-1-n", plan, heard.append)
        await heard.until(Ready)
        await processes.launcher.stop("e-1-n", 20)
        assert processes.left() == []

    play(scenario())


@pytest.mark.parametrize("size", [10, packet.INLINE, 5 << 20])
def test_a_packet_of_any_size_arrives_with_its_descriptors(size: int) -> None:
    ours, theirs = pair()
    with ours, theirs, open(os.devnull) as null:
        packet.send(ours, {"said": "x" * size}, [null.fileno()])
        told, [descriptor] = packet.receive(theirs)
        assert told == {"said": "x" * size}
        assert os.path.samestat(os.fstat(descriptor), os.fstat(null.fileno()))
        os.close(descriptor)
        packet.send(theirs, {"said": "y" * size})
        assert packets(ours) == ([{"said": "y" * size}], False)


def test_what_no_packet_takes_is_refused_by_its_size() -> None:
    ours, theirs = pair()
    with ours, theirs, pytest.raises(packet.TooLong, match=f"more than {packet.LARGEST}"):
        packet.send(ours, {"said": "x" * packet.LARGEST})


def test_a_replica_that_cannot_be_forked_is_told_as_exited_and_the_fork_server_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    log = tmp_path / "e-1-q.log"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, monkeypatch.context() as patched:
        server = forks.Forks(theirs)
        patched.setattr(os, "fork", full)
        server._fork({"replica": "e-1-q"}, [os.dup(0), os.dup(0), os.open(log, os.O_CREAT | os.O_WRONLY)])
        told = json.loads(ours.recv(4096))
    assert told == {"ev": "exited", "replica": "e-1-q", "pid": -1, "status": forks.NOT_FORKED}
    assert log.read_text() == "the replica could not be forked: Resource temporarily unavailable\n"


def children_of_this() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}
