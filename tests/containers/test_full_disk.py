"""An engine whose disk is full: a Podman of the test's own, whose storage is a small disk of its own."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.launch.container.api import ContainerApi
from tests.containers.engine import own_engine
from tests.system.faults.test_full_disk import fill
from torpor.errors import DiskFull

DOCKERFILE = b'FROM scratch\nCOPY big /big\nCMD ["/big"]\n'
SIZE = 6 << 20  # bytes
WORDS = "the disk of the container engine takes nothing more: No space left on device"


@pytest.fixture
def storage(engine: Path) -> Iterator[Path]:
    """In a folder with a short path: a runroot has 50 characters at most."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "root")
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(root)], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True)


def context(place: Path, size: int) -> Path:
    """Of an image with one file of so many bytes."""
    with tarfile.open(place, "w") as tar:
        for name, content in (
            ("Dockerfile", b'FROM scratch\nCOPY big /big\nCMD ["/big"]\n'),
            ("big", os.urandom(size)),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return place


async def built(api: ContainerApi, tar: Path, tag: str) -> None:
    async for _ in api.build(tar, tag, None):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_an_engine_whose_disk_is_full_is_told_as_that_by_builds_and_by_starts(storage: Path, tmp_path: Path) -> None:
    if (podman := shutil.which("podman")) is None:
        return  # Docker's daemon is not a test's to start

    async def scenario(socket: Path) -> None:
        api = ContainerApi(socket)
        await built(api, context(tmp_path / "small.tar", 1 << 20), "small:1")
        with pytest.raises(DiskFull, match=WORDS):
            await built(api, context(tmp_path / "big.tar", 2 * SIZE), "big:1")
        ballast = fill(storage)
        with pytest.raises(DiskFull, match=WORDS):
            await api.create("one", {"Image": "small:1"})
        ballast.unlink()
        assert await api.create("one", {"Image": "small:1"})
        await api.close()

    roots = ["--root", str(storage), "--runroot", str(storage.parent / "run"), "--storage-driver", "vfs"]
    with own_engine([podman, *roots], storage.parent / "engine.sock") as own:
        asyncio.run(scenario(own))
