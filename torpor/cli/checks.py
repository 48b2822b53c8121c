"""What `torpor doctor` looks at: each check is one fact of this machine, how it stands, and what to do about it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torpor.cli.platform import answers, command, read_address
from torpor.errors import TorporError

OK, WARN, FAIL = "ok", "warn", "fail"
DESCRIPTORS = 4096  # of a call there are two: the caller's and the replica's connection
SPACE_LOW, SPACE_NONE = 2 << 30, 200 << 20  # bytes
MEMORY_LOW = 512 << 20  # bytes
PROBE_WITHIN = 60.0  # seconds
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Check:
    """`state`: ok, warn (it works, not well), fail (it does not work). `remedy`: what to do, where something is."""

    name: str
    state: str
    says: str
    remedy: str = ""


def examined(data: Path | None, config: str | None) -> Iterator[Check]:
    """All checks in order, each as soon as it is known. Nothing is changed."""
    yield python()
    yield packages()
    found = configuration(data, config)
    yield found if isinstance(found, Check) else Check("configuration", OK, "no faults")
    settings = {} if isinstance(found, Check) else found
    folder = data or Path(settings.get("data", "~/.local/share/torpor")).expanduser()
    yield folder_of(folder)
    yield space(folder)
    yield database(folder / "torpor.db")
    yield running(folder)
    if settings:
        yield port(settings["host"], settings["port"], folder)
    yield descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield memory(total(), settings.get("memory"))
    yield gpus(graphics())
    if settings:
        yield containers(settings["engine"], settings["settings"]["launcher"] == "container")
    yield from imports(settings)


def python() -> Check:
    """An older one cannot have installed torpor; which one it is tells which environment this is."""
    return Check("python", OK, f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")


def packages() -> Check:
    """The distributions of the extra `platform`."""
    wanted = [line for line in metadata.requires("torpor") or () if 'extra == "platform"' in line]
    there, missing = [], []
    for name in map(named, wanted):
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", FAIL, f"not installed: {', '.join(missing)}", "pip install 'torpor[platform]'")
    shown = [line for line in there if line.split()[0] in ("bentoml", "onnxruntime", "uvloop", "uv")]
    return Check("packages", OK, ", ".join(shown))


def named(requirement: str) -> str:
    """The distribution that a requirement is of: a name is letters, digits, `.`, `-` and `_`, and nothing else is."""
    return re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]


def configuration(data: Path | None, config: str | None) -> dict[str, Any] | Check:
    """What the router would run with, or why it would not."""
    wanted = [
        "--print-config",
        "--json",
        *(["--data", str(data)] if data else []),
        *(["--config", config] if config else []),
    ]
    done = subprocess.run(command("router", wanted), capture_output=True, text=True)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["the router cannot be run"])[0]
        return Check("configuration", FAIL, reason, "pip install 'torpor[platform]'")
    if done.returncode == 0:
        return dict(said)
    lines = str(said["error"]).splitlines()
    return Check("configuration", FAIL, "; ".join(line.strip() for line in lines[:-1]), lines[-1])


def folder_of(folder: Path) -> Check:
    if not folder.exists():
        above = next(each for each in folder.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return Check("data folder", OK, f"{folder} is made at the first start")
        return Check("data folder", FAIL, f"{above} is not writable for this user", "name another with --data")
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("data folder", FAIL, f"{folder} is no folder that this user may write", "name another with --data")
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("data folder", WARN, f"others may look into {folder} (mode {mode:o})", f"chmod 700 {folder}")
    return Check("data folder", OK, str(folder))


def space(folder: Path) -> Check:
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    says = f"{free / (1 << 30):.1f} GiB free"
    if free >= SPACE_LOW:
        return Check("disk", OK, says)
    return Check("disk", FAIL if free < SPACE_NONE else WARN, says, f"make room on the disk of {folder}")


def database(path: Path) -> Check:
    if not path.exists():
        return Check("database", OK, "none yet")
    # Without a log beside it nobody has it open, and reading it as immutable makes no file.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)) as connection:
            sound = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            count = connection.execute("SELECT count(*) FROM endpoints").fetchone()[0]
    except sqlite3.Error as error:
        sound, count = str(error), 0
    if sound == "ok":
        return Check("database", OK, f"{count} endpoints")
    return Check("database", FAIL, f"{path}: {sound}".replace("\n", " "), "put a backup of it in its place")


def running(folder: Path) -> Check:
    found = read_address(folder)
    if found is None:
        return Check("platform", OK, "none runs on this data folder")
    if answers(found):
        return Check("platform", OK, f"{found['url']} (pid {found['pid']}) answers")
    remedy = f"see what it is: ps {found['pid']}; if it is gone: torpor up"
    return Check("platform", WARN, f"{found['url']} (pid {found['pid']}) does not answer", remedy)


def port(host: str, number: int, folder: Path) -> Check:
    found = read_address(folder)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, number))
        except OSError as error:
            if found is not None and found["url"].endswith(f":{number}") and answers(found):
                return Check("port", OK, f"{number} is this platform's")
            who = listener(number)
            says = f"{number} of {host} cannot be had: {error.strerror}" + (f" (pid {who})" if who else "")
            return Check("port", FAIL, says, "end what listens there, or choose another with --port")
    return Check("port", OK, f"{number or 'any'} is free")


def listener(number: int) -> int | None:
    """The process that listens on a port of this machine, as far as this user may see (proc(5), net/tcp)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
                inodes.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # of another user, or gone meanwhile
            if os.readlink(link) in inodes:
                return int(link.parts[2])
    return None


def descriptors(limit: int) -> Check:
    if limit < DESCRIPTORS:
        return Check("descriptors", WARN, f"{limit} files at once, two a call", "ulimit -n 65536 before torpor up")
    return Check("descriptors", OK, f"{limit} files at once")


def total() -> int:
    """Bytes of memory: the machine's, or the container's limit where that is lower."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = [Path(path).read_text().strip() for path in CGROUPS if Path(path).exists()]
    return min([size, *(int(text) for text in texts if text.isdigit())])


def memory(size: int, configured: int | None) -> Check:
    says = f"{size / (1 << 30):.1f} GiB"
    if configured is not None and configured > size:
        says += f", less than `memory` = {configured / (1 << 30):.1f} GiB"
        return Check("memory", FAIL, says, "lower `memory`, or unset it: 0.8 of what there is")
    if size < MEMORY_LOW:
        return Check("memory", WARN, says, "the platform alone takes 200 MiB: give it more")
    return Check(
        "memory", OK, says if configured is None else f"{says}, {configured / (1 << 30):.1f} of it for endpoints"
    )


def containers(engine: str | None, wanted: bool) -> Check:
    """The engine that the launcher `container` would ask. `wanted`: whether endpoints get that launcher unasked."""
    line = command("router.launch.container.probe", [engine] if engine else [])
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=PROBE_WITHIN)
        found = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        return Check("containers", FAIL, f"cannot be tried: {type(error).__name__}", shlex.join(line))
    if "error" not in found:
        rootless = ", rootless" if found["rootless"] else ""
        return Check("containers", OK, f"{found['name']} {found['version']} at {found['socket']}{rootless}")
    says, _, remedy = str(found["error"]).partition("\n")
    if wanted:
        return Check("containers", FAIL, says, remedy)
    return Check("containers", WARN, says, f"only the launcher `container` needs one: {remedy}")


def graphics() -> dict[str, Any]:
    """What `router.launch.cards` prints; where it cannot be run, none."""
    try:
        line = command("router.launch.cards", [])
        done = subprocess.run(line, capture_output=True, text=True, timeout=PROBE_WITHIN)
        return dict(json.loads(done.stdout))
    except (TorporError, subprocess.TimeoutExpired, ValueError) as error:
        return {"cards": [], "driver": False, "why": f"they cannot be looked for: {type(error).__name__}"}


def gpus(found: dict[str, Any]) -> Check:
    """A machine without a driver is none the worse for it; a driver that does not work is."""
    shown = [f"{card['index']}: {card['name']}, {card['memory'] / (1 << 30):.1f} GiB" for card in found["cards"]]
    faults = [f"GPU {card['index']}: {card['fault']}" for card in found["cards"] if card["fault"]]
    if faults:
        return Check("gpus", WARN, "; ".join(shown), f"not handed out: {'; '.join(faults)}")
    if shown:
        return Check("gpus", OK, "; ".join(shown))
    if found["driver"]:
        return Check("gpus", WARN, "none can be handed out", found["why"])
    return Check("gpus", OK, f"none: {found['why']}")


def imports(settings: dict[str, Any]) -> Iterator[Check]:
    """What only a process with the platform's imports can tell."""
    env = {**os.environ, **dict.fromkeys(SINGLE_THREADED, "1"), "BENTOML_DO_NOT_TRACK": "True"}
    env["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        line = [sys.executable, "-P", "-m", "torpor.cli.probe"]
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=PROBE_WITHIN)
        found = json.loads(done.stdout.rpartition("\n")[2])
    except (subprocess.TimeoutExpired, ValueError) as error:
        yield Check("imports", FAIL, f"cannot be tried: {type(error).__name__}", "python -P -m torpor.cli.probe")
        return
    if found["missing"]:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found["missing"].items())
        yield Check("imports", FAIL, reasons, "pip install --force-reinstall 'torpor[platform]'")
    else:
        yield Check("imports", OK, "the platform's packages can be imported")
    yield fork(found["threads"], found["forked"])
    if "providers" in found:
        yield cpu(found["providers"])
        yield stale(found["models"], found["stale"])


def fork(threads: int, status: int) -> Check:
    if status != 0:
        return Check("fork", FAIL, f"a fork ended with {status}", "look at the limits of this user: ulimit -a")
    if threads > 1:
        return Check(
            "fork", WARN, f"{threads} threads after the imports", "see which package starts one, and leave it out"
        )
    return Check("fork", OK, "one thread after the imports")


def cpu(providers: list[str]) -> Check:
    from torpor.onnx.artifact import cpu_flags

    flags = cpu_flags()
    shown = sorted(flags & {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
    says = f"{', '.join(shown) or 'no vector instructions known'}; {', '.join(providers)}"
    if os.uname().machine == "x86_64" and "avx2" not in flags:
        return Check("processor", WARN, says, "without AVX2 models run many times slower: another machine, or CPU type")
    return Check("processor", OK, says)


def stale(count: int, tags: list[str]) -> Check:
    if tags:
        says = f"tuned for another machine: {', '.join(tags)}"
        return Check("models", WARN, says, "they are tuned anew at their first start; or export them here")
    return Check("models", OK, f"{count} in the store")
