"""Escapes by the kernel and by files, each tried from inside."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tests.containers.cells import Cells

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
