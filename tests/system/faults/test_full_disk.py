"""A data folder on a disk that is full: what runs serves on, what needs the disk says so, and nothing is half done."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system import handmade
from tests.system.faults.watching import ENDPOINTS, SERVICE, again, deploy, nothing_is_left, until
from tests.system.running import running

SIZE = 24 << 20  # bytes


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own. Where nobody may mount one, `test_store.py` has a full disk of the database alone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    path = disk / "ballast"
    with path.open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    out.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_a_full_disk_fails_what_needs_it_and_what_runs_serves_on(small: Path) -> None:
    with ThreadPoolExecutor(8) as callers, running(small) as platform:
        victims = deploy(platform, small / "mode", callers)
        victims.sleep("deep")
        assert victims.call("kept", "hello", name="a").status_code == 200
        ballast = fill(small)

        for k in range(3):
            assert victims.call("kept", "hello", name=str(k)).text == f"hello {k}"
        woken = victims.call("deep", "hello", name="a")  # a start that needs the disk may fail, and says so
        assert woken.status_code == 200 or "No space left" in woken.json()["error"], woken.text
        before = victims.view("deep")["revision"]
        told = list(handmade.events(victims.url, {"name": "deep", "bento": "victim:1", "env": {"VICTIM_MODE": "none"}}))
        assert told[-1]["event"] in ("error", "refused"), told
        assert victims.view("deep")["revision"] == before
        assert {view["name"] for view in victims.views()} == ENDPOINTS.keys()

        ballast.unlink()
        until(lambda: again(victims.call("deep", "hello", name="a")))
        handmade.upload(platform.url, "other", handmade.bento("other", SERVICE.read_text(), "service:Victim"))
        nothing_is_left(victims)
