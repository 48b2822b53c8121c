"""What a service in a container can do to others, and to its own end: nothing, each tried from inside."""

from __future__ import annotations

from tests.containers.cells import PATIENCE, Cells, until

MiB = 1 << 20


def test_one_that_forks_for_ever_stops_at_its_limit_and_others_serve(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        """
        import os, signal, time
        made, why = [], "no end"
        while len(made) < 1000:
            try:
                pid = os.fork()
            except OSError as error:
                why = error.strerror
                break
            if not pid:
                time.sleep(60)
                os._exit(0)
            made.append(pid)
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        out = [len(made), why]
        """,
    )
    assert told[1] == "Resource temporarily unavailable"
    assert 30 < told[0] < 64
    assert jail.inside("neighbour", "out = 2") == 2
    assert jail.inside("prisoner", "out = 3") == 3


def test_what_it_leaves_running_ends_with_it(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        """
        import os, time
        pid = os.fork()
        if not pid:
            os.setsid()
            if os.fork():
                os._exit(0)
            open("/tmp/left", "w").write("left")
            time.sleep(3600)
        os.waitpid(pid, 0)
        while not os.path.exists("/tmp/left"):
            time.sleep(0.01)
        out = len([name for name in os.listdir("/proc") if name.isdigit()])
        """,
    )
    assert told == 3
    [runs] = [each for each in jail.containers("prisoner") if each["State"] == "running"]
    jail.sleep("prisoner")
    until(lambda: runs["Id"] not in [each["Id"] for each in jail.containers("prisoner")])


def test_one_that_stops_what_it_was_forked_by_is_ended_all_the_same(jail: Cells) -> None:
    """The first process of its container is its own user's: it may trace it, and leave it stopped."""
    told = jail.inside(
        "prisoner",
        """
        import ctypes, os, time
        pid = os.fork()
        if not pid:
            os._exit(0 if ctypes.CDLL(None).ptrace(16, 1, None, None) == 0 else 1)
        traced = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        time.sleep(0.1)
        out = [traced, open("/proc/1/stat").read().rpartition(")")[2].split()[0]]
        """,
    )
    assert told in ([True, "T"], [False, "S"]), "some kernels let none trace its parent"
    [runs] = [each for each in jail.containers("prisoner") if each["State"] == "running"]
    jail.sleep("prisoner")
    until(lambda: runs["Id"] not in [each["Id"] for each in jail.containers("prisoner")])
    assert jail.inside("prisoner", "out = 4") == 4


def test_one_that_says_what_no_replica_says_hurts_itself_alone(jail: Cells) -> None:
    """It has the sockets that it was forked with: its own, and by its parent's memory that of its fork-server."""
    [other] = [each["id"] for each in jail.view("neighbour")["replicas"]] or [""]
    call = jail.calling(
        "prisoner",
        f"""
        import json, os, socket, stat
        for name in os.listdir("/proc/self/fd"):
            try:
                if stat.S_ISSOCK(os.stat(int(name)).st_mode):
                    found = socket.socket(fileno=os.dup(int(name)))
                    if found.family == socket.AF_UNIX and found.type == socket.SOCK_SEQPACKET:
                        exited = {{"ev": "exited", "replica": {other!r}, "status": 0}}
                        for told in (exited, {{"ev": "ready"}}, {{}}, []):
                            found.send(json.dumps(told).encode())
                        found.send(b'{{"large": 5}}')
                        found.send(b"no packet")
            except OSError:
                pass
        out = 1
        """,
    )
    assert call.result(PATIENCE).status_code in (200, 502)
    assert [each["id"] for each in jail.view("neighbour")["replicas"]] == [other] * bool(other)
    assert jail.inside("neighbour", "out = 5") == 5
    until(lambda: jail.call("prisoner", "out = 6").text == "6")


def test_two_endpoints_cannot_read_each_other_s_folders(jail: Cells) -> None:
    folder = jail.data / "endpoints" / "neighbour"
    (folder / "private").write_text("private")
    assert jail.inside("prisoner", f"import os; out = os.path.exists({str(folder)!r})") is False
