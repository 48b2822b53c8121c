"""Escapes, each tried from inside: a service in a container does what it likes, and gets nowhere."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers.cells import PATIENCE, Cells, cells, until
from tests.containers.engine import asked

CANARY = "of-the-router-alone"  # in the environment of whoever started the platform
SECRET, FILE = "known-to-one-as-a-variable", "known-to-one-as-a-file"
MiB = 1 << 20
# Syscalls of x86-64 that lead out, with arguments that would do so: mount, pivot_root, chroot, ...
CALLS = {
    "mount": (165, b"proc", b"/tmp", b"proc", 0, 0),
    "umount": (166, b"/etc/hosts", 2),
    "pivot_root": (155, b"/", b"/"),
    "chroot": (161, b"/tmp"),
    "unshare user": (272, 0x10000000),
    "unshare mount": (272, 0x00020000),
    "setns": (308, 0, 0),
    "mknod": (133, b"/tmp/sda", 0o60666, os.makedev(8, 0)),
    "setuid": (105, 0),
    "setgid": (106, 0),
    "setgroups": (116, 0, 0),
    "chown": (92, b"/tmp", 0, 0),
    "bpf": (321, 0, 0, 0),
    "add_key": (248, b"user", b"torpor", b"x", 1, -4),
    "keyctl": (250, 0, -4, 1),
    "clone user": (56, 0x10000011, 0, 0, 0, 0),
    "fsopen": (430, b"tmpfs", 0),
    "init_module": (175, 0, 0, b""),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0x89ABCDEF, 0),
    "swapon": (167, b"/tmp", 0),
    "settimeofday": (164, 0, 0),
    "sethostname": (170, b"x", 1),
    "open_by_handle_at": (304, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "iopl": (172, 3),
}
# Writes what it can in every folder that it sees, and tells those where that went.
WRITABLE = """
import os
out = []
for root, folders, files in os.walk("/"):
    if root in ("/proc", "/sys"):
        folders.clear()
        continue
    try:
        os.mkdir(f"{root}/written")
        os.rmdir(f"{root}/written")
        out.append(root)
        folders.clear()
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory, engine: Path, host_image: str) -> Iterator[Cells]:
    """`prisoner` knows nothing, `neighbour` has secrets; both are awake."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SECRET_ACCESS_KEY", "BENTO_CLOUD_API_KEY", "SOMEBODYS_TOKEN"):
            patch.setenv(name, CANARY)
        with cells(tmp_path_factory.mktemp("jail"), engine, host_image) as made:
            env = [{"key": "PASSWORD", "value": SECRET}]
            file = [{"key": "cert", "value": FILE}]
            for name, content in (
                ("password", {"type": "env", "items": env}),
                ("cert", {"type": "file", "path": "/etc/tls", "items": file}),
            ):
                body = {"name": name, "content": content}
                httpx.post(f"{made.url}/api/v1/org_secrets", json=body, timeout=PATIENCE).raise_for_status()
            made.deploy("neighbour", "password", "cert", sleep="stop")
            made.deploy("prisoner", sleep="stop", memory_limit=1 << 30, pids_limit=64, drain_within=1, stop_within=1)
            made.inside("neighbour", "out = 1")
            made.inside("prisoner", "out = 1")
            yield made


def test_it_is_nobody_and_can_become_nobody_else(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        """
        import os
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        out = {name: status[name].split() for name in status if name[:3] in ("Cap", "Uid", "Gid", "NoN", "Sec")}
        out["groups"] = status["Groups"].split()
        """,
    )
    assert "0" not in [*told["Uid"], *told["Gid"], *told["groups"]]
    capabilities = {name: int(value[0], 16) for name, value in told.items() if name.startswith("Cap")}
    assert capabilities == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert (told["NoNewPrivs"], told["Seccomp"]) == (["1"], ["2"])


def test_a_program_that_would_make_it_root_does_not(jail: Cells) -> None:
    """`su` and the like are in most images, with the bit that makes whoever runs them root."""
    told = jail.inside(
        "prisoner",
        """
        import os, subprocess
        found = [f"{root}/{name}" for root, _, files in os.walk("/usr") for name in files
                 if os.stat(f"{root}/{name}", follow_symlinks=False).st_mode & 0o4000]
        ran = subprocess.run(["su", "-c", "id -u"], input="", capture_output=True, text=True)
        out = [len(found), ran.stdout, ran.returncode]
        """,
    )
    assert told[0] > 0
    assert told[1] == ""
    assert told[2] != 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of syscalls are those of x86-64")
def test_what_the_kernel_would_do_for_root_it_does_not_do(jail: Cells) -> None:
    calls = {name: [each.decode() if isinstance(each, bytes) else each for each in row] for name, row in CALLS.items()}
    told = jail.inside(
        "prisoner",
        f"""
        import ctypes, json, os
        libc = ctypes.CDLL(None, use_errno=True)
        out = {{}}
        for name, row in json.loads({json.dumps(json.dumps(calls))}).items():
            row = [each.encode() if isinstance(each, str) else ctypes.c_long(each) for each in row]
            pid = os.fork()
            if not pid:
                os._exit(0 if libc.syscall(*row) >= 0 else min(254, ctypes.get_errno()))
            out[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """,
    )
    assert told.keys() == CALLS.keys()
    allowed = (errno.EPERM, errno.EACCES, errno.ENOSYS)
    assert {name: os.strerror(number) for name, number in told.items() if number not in allowed} == {}


def test_it_writes_its_own_folder_and_its_scratch_and_nothing_else(jail: Cells) -> None:
    """Of the machine: what is left of that is memory, and gone with it."""
    state = str(jail.data / "endpoints" / "prisoner")
    written = set(jail.inside("prisoner", WRITABLE))
    assert {"/tmp", "/dev/shm"} <= written
    told = jail.inside("prisoner", "out = [line.split() for line in open('/proc/self/mounts')]")
    kinds = {row[1]: row[2] for row in told}
    folders = {path: kinds[max((each for each in kinds if below(path, each)), key=len)] for path in written - {state}}
    assert {path for path, kind in folders.items() if kind not in ("tmpfs", "mqueue")} == set()


def below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def test_neither_its_service_nor_what_serves_it_can_be_changed(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        """
        import os, sys, torpor
        places = [
            sys.modules["service"].__file__, torpor.__file__, os.__file__, "/etc/passwd", "/proc/sysrq-trigger",
            "/proc/sys/kernel/core_pattern", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/kernel/mm/ksm/run",
        ]
        out = {}
        for place in filter(os.path.exists, places):
            for how in ("ab", "r+b"):
                try:
                    open(place, how).close()
                    out[place] = "opened"
                except OSError as error:
                    out[place] = error.strerror
        """,
    )
    assert len(told) >= 5
    assert set(told.values()) <= {"Read-only file system", "Permission denied", "Operation not permitted"}, told


def test_its_scratch_is_bounded_and_its_own_folder_outlives_it(jail: Cells) -> None:
    told = jail.inside(
        "prisoner",
        f"""
        import os
        wrote = 0
        with open("/tmp/filled", "wb", buffering=0) as file:
            try:
                while wrote < {1 << 30}:
                    wrote += file.write(bytes({MiB}))
                out = [wrote, "no end"]
            except OSError as error:
                out = [wrote, error.strerror]
        os.unlink("/tmp/filled")
        open(os.environ["BENTOML_RESULT_STORE"] + ".kept", "w").write("kept")
        """,
    )
    assert told[1] == "No space left on device"
    assert 200 * MiB < told[0] <= 256 * MiB
    assert [path.read_text() for path in (jail.data / "endpoints" / "prisoner").glob("*.kept")] == ["kept"]


def test_it_has_no_network_not_even_the_machine_s_own(jail: Cells) -> None:
    address = httpx.URL(jail.url)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0torpor-tests-{os.getpid()}")
        listener.listen()
        told = jail.inside(
            "prisoner",
            f"""
            import os, socket
            out = {{"interfaces": [name for _, name in socket.if_nameindex()]}}
            def reach(name, family, place, kind=socket.SOCK_STREAM):
                with socket.socket(family, kind) as tried:
                    tried.settimeout(3)
                    try:
                        tried.connect(place)
                        out[name] = "connected"
                    except OSError as error:
                        out[name] = error.strerror or str(error)
            reach("router", socket.AF_INET, ("127.0.0.1", {address.port}))
            reach("machine", socket.AF_INET, ("{own_address()}", {address.port}))
            reach("metadata", socket.AF_INET, ("169.254.169.254", 80))
            reach("names", socket.AF_INET, ("192.0.2.53", 53), socket.SOCK_DGRAM)
            reach("abstract", socket.AF_UNIX, "\\0torpor-tests-{os.getpid()}")
            try:
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                out["raw"] = "made"
            except OSError as error:
                out["raw"] = error.strerror
            """,
        )
    assert told.pop("interfaces") == ["lo"]
    unreachable, refused = "Network is unreachable", "Connection refused"
    assert told == {
        "router": refused,
        "machine": unreachable,
        "metadata": unreachable,
        "names": unreachable,
        "abstract": refused,
        "raw": "Operation not permitted",
    }


def own_address() -> str:
    """This machine's, as the world sees it; one that is nobody's where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "192.0.2.1"


def test_egress_asks_for_a_network_and_nothing_else_has_one(jail: Cells, engine: Path) -> None:
    jail.deploy("outward", sleep="stop", egress=True)
    try:
        modes = {
            name: {
                asked(engine, "GET", f"/containers/{each['Id']}/json").json()["HostConfig"]["NetworkMode"]
                for each in jail.containers(name)
            }
            for name in ("outward", "prisoner")
        }
    finally:
        httpx.delete(f"{jail.url}/torpor/v1/endpoints/outward", timeout=PATIENCE).raise_for_status()
    assert modes["prisoner"] == {"none"}
    assert modes["outward"]
    assert "none" not in modes["outward"]
    assert "host" not in modes["outward"]


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
    strange = {path for path in inner - parents if not any(below(path, place) for place in mounted)}
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
