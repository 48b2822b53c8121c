"""What a container's processes may no longer ask of the kernel, beyond what the engine's own profile keeps from them.

Podman's profile leaves it to capabilities who makes namespaces, and a user namespace takes none: inside it all of them
are there, and with them the parts of the kernel that only root reaches. Key rings are a user's, and all containers may
run as one. Docker's profile refuses both. A filter (seccomp(2)) is kept by all that is forked and executed from here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
# linux/bpf_common.h: load a word of seccomp_data, jump if equal, at least, any bit set; return.
LOAD, EQUAL, AT_LEAST, ANY, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data
NAMESPACES = 0x7E020000  # CLONE_NEW*, less that of time
TIME = 0x80  # CLONE_NEWTIME: of unshare alone, in clone(2) the bit is a signal's
X32 = 0x40000000  # the other numbers of the same calls


@dataclass(frozen=True, slots=True)
class Machine:
    """Numbers of linux/audit.h and asm/unistd.h. `refused`: mount, umount2, pivot_root, setns, add_key, request_key,
    keyctl, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr."""

    architecture: int
    clone: int
    unshare: int
    refused: tuple[int, ...]
    clone3: int = 435


NEW_MOUNTS = (428, 429, 430, 431, 432, 433, 442)  # alike everywhere
MACHINES = {
    "x86_64": Machine(0xC000003E, 56, 272, (165, 166, 155, 308, 248, 249, 250, *NEW_MOUNTS)),
    "aarch64": Machine(0xC00000B7, 220, 97, (40, 39, 41, 268, 217, 218, 219, *NEW_MOUNTS)),
}


def seal() -> None:
    """For good. Nothing on a machine whose numbers are not known here. Raises OSError."""
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        return
    rows = program(machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
    # struct sock_fprog; the kernel copies what it points to
    told = ctypes.create_string_buffer(struct.pack("@HP", len(rows), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    filtered = (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(told), 0, 0)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), filtered):
        if libc.prctl(*map(ctypes.c_ulong, call)) != 0:
            raise OSError(ctypes.get_errno(), f"the kernel takes no filter: {os.strerror(ctypes.get_errno())}")


def program(machine: Machine) -> list[tuple[int, int, int, int]]:
    """Rows of struct sock_filter. What is of another architecture is refused whole: its numbers are others.

    clone3 has its flags where no filter sees them; a C library that is told that there is none takes clone.
    """
    refuse = (RETURN, 0, 0, ERRNO | errno.EPERM)
    rows = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, machine.architecture), refuse]
    rows += [(LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 1, X32), refuse]
    rows += [(EQUAL, 0, 1, machine.clone3), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for number in machine.refused:
        rows += [(EQUAL, 0, 1, number), refuse]
    for number, flags in ((machine.clone, NAMESPACES), (machine.unshare, NAMESPACES | TIME)):
        rows += [(EQUAL, 0, 3, number), (LOAD, 0, 0, FIRST_ARGUMENT), (ANY, 0, 1, flags), refuse]
        rows += [(LOAD, 0, 0, NUMBER)]
    return [*rows, (RETURN, 0, 0, ALLOW)]
