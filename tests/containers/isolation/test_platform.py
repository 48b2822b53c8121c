"""What of the platform and of other endpoints can be had from inside: nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.containers.cells import Cells
from tests.containers.engine import asked
from tests.containers.isolation.conftest import CANARY, FILE, SECRET

MiB = 1 << 20


def test_nothing_of_the_platform_is_there(jail: Cells, engine: Path) -> None:
    """No socket at all that has a name, and of the data folder what is its own."""
    there = {str(path) for path in jail.data.rglob("*")}
    told = jail.inside(
        "prisoner",
        """
        import os, stat
        out = {"sockets": [], "all": []}
        for root, folders, files in os.walk("/"):
            if root in ("/proc", "/sys"):
                folders.clear()
                continue
            for name in (*folders, *files):
                path = f"{root.rstrip('/')}/{name}"
                out["all"].append(path)
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    out["sockets"].append(path)
        """,
    )
    assert told["sockets"] == []
    seen = set(told["all"])
    assert str(engine) not in seen
    [bento] = {path for path in there if path.endswith("src/service.py")}
    mounted = (str(jail.data / "endpoints" / "prisoner"), str(Path(bento).parents[1]))
    inner = {path for path in seen if Path(path).is_relative_to(jail.data)}
    parents = {str(parent) for place in mounted for parent in Path(place).parents}
    strange = {path for path in inner - parents if not any(Path(path).is_relative_to(place) for place in mounted)}
    assert strange == set()


def test_its_control_socket_is_gone_once_it_is_connected(jail: Cells) -> None:
    told = jail.inside(
        "prisoner", "import os; out = [root + '/' + f for root, _, n in os.walk('/run/torpor') for f in n]"
    )
    assert told == []


def test_what_was_handed_to_it_leads_nowhere(jail: Cells) -> None:
    """No folder is among its descriptors, nor those of its container's first process; its log it can only add to."""
    told = jail.inside(
        "prisoner",
        """
        import os, stat
        out = {"folders": [], "files": {}}
        for pid in ("self", "1"):
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                try:
                    mode = os.stat(path).st_mode
                except OSError:  # the listing's own
                    continue
                if stat.S_ISDIR(mode):
                    out["folders"].append(os.readlink(path))
                if stat.S_ISREG(mode):
                    out["files"][os.readlink(path)] = int(open(f"/proc/{pid}/fdinfo/{name}").read().split()[3], 8)
        for how in ("read", "write"):
            try:
                os.open("/proc/self/fd/1", os.O_RDONLY if how == "read" else os.O_WRONLY)
                out[how] = "opened"
            except OSError as error:
                out[how] = error.strerror
        try:
            os.lseek(1, 0, os.SEEK_SET)
            os.write(1, b"added at the end\\n")
            os.read(1, 10)
            out["said"] = "read"
        except OSError as error:
            out["said"] = error.strerror
        """,
    )
    assert told["folders"] == []
    [(log, flags)] = told["files"].items()
    assert log.endswith(".log")
    assert flags & (os.O_APPEND | os.O_WRONLY) == os.O_APPEND | os.O_WRONLY
    assert told["said"] == "Bad file descriptor"
    if os.getuid() == 0:  # else the log is its own user's, who may read and write it
        assert (told["read"], told["write"]) == ("Permission denied", "Permission denied")
    [replica] = jail.view("prisoner")["replicas"]
    lines = (jail.data / "logs" / "prisoner" / f"{replica['id']}.log").read_text().splitlines()
    assert "added at the end" in lines[1:] or len(lines) == 1


def test_it_sees_no_process_but_its_own_and_can_signal_none(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        f"""
        import os
        out = {{"pids": {{}}, "signalled": []}}
        for name in filter(str.isdigit, os.listdir("/proc")):
            out["pids"][name] = open(f"/proc/{{name}}/cmdline").read().replace("\\0", " ")
        for pid in ({jail.platform.pid}, {os.getpid()}):
            try:
                os.kill(pid, 0)
                out["signalled"].append(pid)
            except ProcessLookupError:
                pass
        """,
    )
    assert set(told["signalled"]) <= set(map(int, told["pids"])), "a number of its own, by chance"
    assert len(told["pids"]) == 2
    assert all("torpor.host.forkserver" in line for line in told["pids"].values())


def test_it_knows_nothing_that_the_router_knows(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        """
        import os
        out = {"own": dict(os.environ)}
        for pid in ("self", "1"):
            out[pid] = open(f"/proc/{pid}/environ").read()
        """,
    )
    text = json.dumps(told)
    assert CANARY not in text
    assert [name for name in told["own"] if name.startswith("TORPOR_")] == ["TORPOR_THREADS"]


def test_secrets_are_their_endpoint_s_alone(jail: Cells, engine: Path) -> None:
    """Neither the engine nor the list of processes tells them, and they go with the replica."""
    look = """
    import os, stat
    out = {"variable": os.environ.get("PASSWORD"), "files": []}
    for root, _, files in os.walk("/run/torpor"):
        for name in files:
            path = f"{root}/{name}"
            out["files"].append([open(path).read(), oct(stat.S_IMODE(os.stat(path).st_mode)), path])
    """
    has, has_not = jail.inside("neighbour", look), jail.inside("prisoner", look)
    assert has["variable"] == SECRET
    [(content, mode, path)] = has["files"]
    assert (content, mode, path.endswith("/secrets/etc/tls/cert")) == (FILE, "0o600", True)
    assert has_not == {"variable": None, "files": []}
    told = [asked(engine, "GET", f"/containers/{each['Id']}/json").text for each in jail.containers()]
    assert len(told) >= 2
    seen = "".join(told) + "".join(processes())
    assert [each for each in (SECRET, FILE) if each in seen] == []
    jail.sleep("neighbour")
    assert list((jail.data / "run").rglob("cert")) == []


def processes() -> Iterator[str]:
    """Command lines and environments, as this machine shows them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace") + path.with_name("environ").read_text(errors="replace")
        except OSError:  # it has ended, or is somebody else's
            continue
