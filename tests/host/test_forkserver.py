"""The fork-server: what it imports, how many threads it has, what it tells, how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.hosting import Gate, Host, until
from torpor.host.preload import OWN

STARTS_A_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


def threads(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Host]:
    """A fork-server that the test may end."""
    (tmp_path / "own").mkdir()
    host = Host(tmp_path / "own")
    yield host
    host.close()


def test_it_has_one_thread_and_what_replicas_need(host: Host) -> None:
    ready = host.preload()
    assert (ready["pid"], ready["threads"], threads(host.pid)) == (host.pid, 1, 1)
    assert {"bentoml", "uvloop", "numpy", "_bentoml_impl.server.app", "torpor.host.replica"} <= set(host.preloaded)
    assert not host.skipped.keys() & set(OWN)
    assert (ready["preloaded"], ready["skipped"]) == ([], {}), "what was told before is not told again"


def test_modules_that_start_a_thread_raise_or_die_are_left_out_with_the_reason(host: Host) -> None:
    for name, source in {
        "quiet_one": "",
        "threaded": STARTS_A_THREAD,
        "quiet_two": "",
        "raising": "1 / 0\n",
        "dying": "import os\nos._exit(3)\n",
        "quiet_three": "",
    }.items():
        (host.importable / f"{name}.py").write_text(source)
    ready = host.preload("quiet_one", "threaded", "quiet_two", "raising", "dying", "absent", "quiet_three")
    assert [name for name in ready["preloaded"] if name.startswith("quiet")] == [
        "quiet_one",
        "quiet_two",
        "quiet_three",
    ]
    assert ready["skipped"] == {
        "threaded": "it starts a thread when it is imported",
        "raising": "ZeroDivisionError: division by zero",
        "dying": "importing it ended a process with status 3",
        "absent": "ModuleNotFoundError: No module named 'absent'",
    }
    assert (ready["threads"], threads(host.pid)) == (1, 1)


def test_it_leads_a_session_that_its_replicas_leave(host: Host) -> None:
    replica = host.fork("Patient")
    replica.ready()
    process = replica.call("process").json()
    assert process["pid"] == process["session"] == process["group"] == replica.pid
    assert os.getsid(host.pid) == host.pid
    replica.terminate()
    assert replica.exited() == 0


def test_a_replica_that_is_killed_is_told_with_the_signal(host: Host) -> None:
    replica = host.fork("Patient")
    replica.ready()
    os.kill(replica.pid, signal.SIGKILL)
    assert replica.exited() == -signal.SIGKILL


def test_it_ends_with_the_router_and_its_replicas_end_too(own: Host, gate: Gate) -> None:
    """What runs in a replica is drained, though nobody is left to tell of it."""
    replica = own.fork("Patient")
    replica.ready()
    line = replica.line("hold", gate=str(gate))
    gate.begun()
    own.control.close()
    replica.control.close()
    assert own.process.wait(20) == 0
    assert line.is_open()
    gate.open()
    assert b"held" in line.rest()
    until(lambda: not Path(f"/proc/{replica.pid}/exe").exists())  # a zombie has none


def test_a_start_after_a_rest_is_the_child_that_was_forked_before(own: Host) -> None:
    own.preload()
    spare = own.hear("spare")["pid"]
    assert threads(spare) == 1
    replica = own.fork("Patient")
    assert replica.pid == spare
    replica.ready()
    process = replica.call("process").json()
    assert process["pid"] == process["session"] == process["group"] == spare
    following = own.hear("spare")["pid"]
    assert following != spare, "the next start has one too"
    os.kill(spare, signal.SIGKILL)
    assert replica.exited() == -signal.SIGKILL


def test_starts_that_come_at_once_do_not_wait_for_a_spare(own: Host) -> None:
    own.preload()
    own.hear("spare")
    replicas = [own.fork("Patient") for _ in range(3)]
    for replica in replicas:
        replica.ready()
    assert len({replica.pid for replica in replicas}) == 3


def test_a_spare_that_was_killed_is_made_again(own: Host) -> None:
    own.preload()
    spare = own.hear("spare")["pid"]
    os.kill(spare, signal.SIGKILL)
    again = own.hear("spare")["pid"]
    replica = own.fork("Patient")
    assert again == replica.pid != spare
    replica.ready()


def test_a_spare_without_the_latest_imports_is_not_used(own: Host) -> None:
    own.preload()
    spare = own.hear("spare")["pid"]
    own.preload("marker")
    until(lambda: not Path(f"/proc/{spare}/exe").exists())
    assert own.hear("spare")["pid"] != spare


def test_a_spare_ends_with_a_fork_server_that_was_killed(own: Host) -> None:
    own.preload()
    spare = own.hear("spare")["pid"]
    os.kill(own.pid, signal.SIGKILL)
    own.process.wait()
    until(lambda: not Path(f"/proc/{spare}/exe").exists())
