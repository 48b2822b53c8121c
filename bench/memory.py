"""What a platform, a sleeping endpoint, a template and a replica take, beside `bentoml serve` of the same service."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from bench.platform import ROOT, conditions, exported_model, started
from bench.stock import call, first_answer, post, serving
from bench.table import Row
from torpor import Client

MB = 1 << 20
SLEEPERS = 20  # endpoints registered and asleep
CALLS = 20  # of each process that is measured awake
SETTLE = 2.0  # seconds after the last change


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    exported_model()
    with started() as client:
        platform = int(client.status()["pid"])
        deploy(client, "first", "deep")
        rest = settled(platform)
        for k in range(SLEEPERS):
            deploy(client, f"deep-{k}", "deep")
        deep = max(0, settled(platform) - rest) // SLEEPERS
        before = anonymous(platform)
        deploy(client, "template", "template")
        time.sleep(SETTLE)
        template = anonymous(platform) - before
        deploy(client, "awake", "deep")
        for _ in range(CALLS):
            call(client, "awake")
        time.sleep(SETTLE)  # the session that answered first is replaced by the packed one
        (replica,) = client.get("awake")["replicas"]
        pid = replica["pid"]
        assert pid is not None
        awake, whole = private(pid), pss(pid)
    with serving("int8") as (server, port):
        first_answer(port)
        for _ in range(CALLS):
            post("127.0.0.1", port, "/embed")
        peer = sum(pss(pid) for pid in family(server))
    rows = [
        row("the platform at rest (PSS)", rest, 200),
        row(f"each of {SLEEPERS} endpoints, asleep deep", deep, 1),
        row("a template and its fork ahead, of their own", template, 20),
        row("a replica awake, private", awake, 60),
        Row.of("a replica awake (PSS)", mb(whole), mb(peer), peer / whole, 1.0, "peer: all of bentoml serve"),
    ]
    return conditions(), rows


def row(name: str, size: int, at_most: int) -> Row:
    """`at_most` is in MB. The ratio is that to the goal: above 1 is less than allowed."""
    return Row(name, mb(size), "", f"at most {at_most} MB", None, None, size <= at_most * MB)


def deploy(client: Client, name: str, sleep: str) -> None:
    folder = str(ROOT / "services" / "embedding")
    client.deploy(folder, name=name, env={"TORPOR_PRECISION": "int8"}, settings={"sleep": sleep})
    client.sleep(name)


def settled(platform: int) -> int:
    time.sleep(SETTLE)
    return sum(pss(pid) for pid in family(platform))


def anonymous(platform: int) -> int:
    """Bytes of all its processes that are no pages of files; what several share is counted once."""
    return sum(rollup(pid).get("Pss_Anon", 0) for pid in family(platform))


def family(pid: int) -> set[int]:
    """A process and all that come from it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= family(int(child))
    return found


def pss(pid: int) -> int:
    return rollup(pid).get("Pss", 0)


def private(pid: int) -> int:
    """Bytes that no other process shares and that are no page of a file, which the kernel may drop at any time."""
    return rollup(pid).get("Private_Dirty", 0)


def rollup(pid: int) -> dict[str, int]:
    """proc(5), smaps_rollup, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def mb(size: int) -> str:
    return f"{size / MB:.1f} MB"
