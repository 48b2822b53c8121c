"""What is given to the containers' user, by a router that is root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from router.launch.container.owner import give
from router.launch.container.spec import USER

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def owners(folder: Path) -> dict[str, int]:
    return {path.name: path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def test_a_folder_is_given_with_all_that_is_in_it_and_nothing_that_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "secret").touch()
    folder = tmp_path / "state"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").touch()
    (folder / "link").symlink_to(tmp_path / "theirs")
    (folder / "dead").symlink_to("/nonexistent")
    give(folder)
    assert set(owners(folder).values()) == {USER}
    assert owners(tmp_path / "theirs") == {"theirs": 0, "secret": 0}


def test_a_link_that_takes_a_folder_s_place_meanwhile_leads_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that runs may write there while another one's container is made."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    folder = tmp_path / "state"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").touch()
    chown = os.chown

    def swapping(path: Any, *rest: Any, **more: Any) -> None:
        if Path(path).name == "file":
            (folder / "deep").rename(folder / "moved")
            (folder / "deep").symlink_to(tmp_path / "theirs")
        chown(path, *rest, **more)

    monkeypatch.setattr(os, "chown", swapping)
    give(folder)
    assert owners(tmp_path / "theirs") == {"theirs": 0, "file": 0}
    assert (folder / "moved" / "file").stat().st_uid == USER
