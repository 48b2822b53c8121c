"""The package that containers get: the router's own, or, of a router in a container, a copy the engine can mount."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torpor
from router.launch.container.package import package

OWN = Path(torpor.__file__).parent


def test_outside_of_a_container_it_is_the_one_that_is_installed(tmp_path: Path) -> None:
    assert package(tmp_path, ()) == OWN
    assert list(tmp_path.iterdir()) == []


def test_in_a_container_it_is_a_whole_copy_in_the_data_folder(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        found = package(tmp_path, (Path("/"),))
    finally:
        os.umask(old)
    assert found.is_relative_to(tmp_path)
    told = "import torpor, torpor.host.forkserver; print(torpor.__file__)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(found.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-P", "-c", told], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(found / "__init__.py")
    for path in (found, *found.rglob("*")):
        assert path.stat().st_mode & 0o055 >= (0o055 if path.is_dir() else 0o044), f"{path} is closed to others"
    assert not (found / "_app").exists()


def test_it_is_copied_once_and_what_an_earlier_version_or_a_cut_off_copy_left_goes(tmp_path: Path) -> None:
    (tmp_path / "host" / "0123456789abcdef" / "torpor").mkdir(parents=True)
    (tmp_path / "host" / "tmpabcdefgh").mkdir()
    found = package(tmp_path, (Path("/"),))
    made = found.stat().st_ino
    assert package(tmp_path, (Path("/"),)) == found
    assert found.stat().st_ino == made
    assert list((tmp_path / "host").iterdir()) == [found.parent]
