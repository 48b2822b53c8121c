"""What a platform has on this machine, read from /proc and its data folder, and what of it should not be there."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torpor.wire import EndpointView

SETTLED = frozenset(("ready", "paused"))  # states of a replica that last


def environ(pid: int) -> dict[str, str]:
    """A process's environment as it was started, {} when it is gone or not ours."""
    try:
        rows = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(row.decode(errors="replace").partition("=")[::2] for row in rows)


def processes(data: Path) -> dict[int, str]:
    """Everything that was started with this data folder as TORPOR_DATA: pid -> command line, less what asks."""
    found: dict[int, str] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid != os.getpid() and environ(pid).get("TORPOR_DATA") == str(data):
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return found


def written(data: Path) -> dict[str, int]:
    """Processes that the router wrote down: name -> pid."""
    found: dict[str, int] = {}
    for path in (data / "run").glob("*.pid"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found[path.stem] = int(json.loads(path.read_text())["pid"])
    return found


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def zombies(pid: int) -> list[int]:
    """Children of a process that have ended and that it has not waited for."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if Path(f"/proc/{child}").exists() and not alive(child)]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def unsettled(data: Path, router: int, views: Iterable[EndpointView]) -> list[str]:
    """What a platform in which nobody calls should not show: one sentence each."""
    wrong: list[str] = []
    named: dict[str, int | None] = {}  # what the router speaks of, and the pid that it gives
    for view in views:
        if view["in_flight"] or view["parked"]:
            wrong.append(f"{view['name']}: {view['in_flight']} calls in flight and {view['parked']} parked")
        for replica in view["replicas"]:
            named[replica["id"]] = replica["pid"]
            if replica["state"] not in SETTLED:
                wrong.append(f"{view['name']}: {replica['id']} is {replica['state']}")
        if view["template"] is not None:
            named[view["template"]["id"]] = None
            if view["template"]["state"] != "kept":
                wrong.append(f"{view['name']}: its template is {view['template']['state']}")
    return wrong + left_over(data, router, named)


def left_over(data: Path, router: int, named: Mapping[str, int | None]) -> list[str]:
    """Processes, sockets and folders that belong to nothing that the router has named."""
    wrong: list[str] = []
    known = written(data)
    for name, pid in known.items():
        if not name.startswith("forkserver-") and name not in named:
            wrong.append(f"{name}.pid is left, of a process that {'runs' if alive(pid) else 'is gone'}")
        elif not alive(pid):
            wrong.append(f"{name}.pid names {pid}, which is gone")
    leaders = {*known.values(), *named.values(), router}  # a full disk keeps a pid from being written down
    for pid, line in processes(data).items():
        with contextlib.suppress(ProcessLookupError):
            if pid not in leaders and os.getsid(pid) not in leaders:
                wrong.append(f"process {pid} belongs to nothing: {line}")
    for path in (data / "run").iterdir():
        if path.suffix == ".sock" and path.stem not in {*named, "control"}:
            wrong.append(f"socket {path.name} is left")
        elif path.is_dir() and path.name not in named:
            wrong.append(f"folder {path.name} is left in run")
    return wrong + [f"{pid}, a child of the router, was not waited for" for pid in zombies(router)]


def settle(look: Callable[[], list[str]], within: float) -> list[str]:
    """What `look` still finds when it has had time to find nothing."""
    give_up = time.monotonic() + within
    while (wrong := look()) and time.monotonic() < give_up:
        time.sleep(0.02)
    return wrong
