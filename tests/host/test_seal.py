"""The filter of a container's first process, on the kernel itself: in a process of its own, for it is for good."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from torpor.host.seal import MACHINES, program

MACHINE = MACHINES.get(os.uname().machine)
# Each syscall in a child; then what a service needs as much as ever: threads, children, programs.
TRIED = """
import ctypes, json, os, subprocess, sys, threading
from torpor.host.seal import seal

seal()
libc = ctypes.CDLL(None, use_errno=True)
out = {}
for name, row in json.loads(sys.argv[1]).items():
    pid = os.fork()
    if not pid:
        os._exit(0 if libc.syscall(*map(ctypes.c_long, row)) >= 0 else ctypes.get_errno())
    out[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
ran = []
thread = threading.Thread(target=ran.append, args=(1,))
thread.start()
thread.join()
again = "import ctypes; c = ctypes.CDLL(None, use_errno=True); c.unshare(0x10000000); print(ctypes.get_errno())"
done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True)
print(json.dumps([out, ran, int(done.stdout)]))
"""


@pytest.mark.skipif(MACHINE is None, reason="its syscalls have other numbers: there is no filter")
def test_a_sealed_process_has_no_namespaces_mounts_or_key_rings_and_all_that_a_service_needs() -> None:
    assert MACHINE is not None
    calls = {str(number): [number, 0, 0, 0, 0, 0] for number in MACHINE.refused}
    calls |= {"clone": [MACHINE.clone, 0x10000011, 0, 0, 0, 0], "unshare": [MACHINE.unshare, 0x10000000]}
    calls |= {"time": [MACHINE.unshare, 0x80], "files": [MACHINE.unshare, 0x400]}
    done = subprocess.run([sys.executable, "-c", TRIED, json.dumps(calls)], capture_output=True, text=True, check=True)
    refused, ran, below = json.loads(done.stdout)
    assert refused.pop("files") == 0, "which no namespace is"
    assert set(refused.values()) == {errno.EPERM}
    assert (ran, below) == ([1], errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_filter_s_jumps_lead_into_it(machine: str) -> None:
    rows = program(MACHINES[machine])
    for at, (code, yes, no, _) in enumerate(rows):
        assert at + max(yes, no) + 1 < len(rows) or code == 0x06
    assert rows[-1][0] == 0x06
