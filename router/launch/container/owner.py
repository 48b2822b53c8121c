"""Whose the files are that containers see, where the router is root and their user is nobody's on the host."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from router.launch.container.spec import USER


def give(folder: Path) -> None:
    """A folder and what is in it to the containers' user. Follows no links, also none that comes meanwhile: whoever it
    was given to may write in it, and have a link where a folder was. Blocks."""
    if os.getuid() != 0:
        return
    os.chown(folder, USER, USER, follow_symlinks=False)
    for _, folders, files, at in os.fwalk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                os.chown(name, USER, USER, dir_fd=at, follow_symlinks=False)


def let_read(place: Path) -> None:
    """Lets the containers' group read a file, or a folder and what is in it, where others may not. Blocks.

    BentoML makes its models readable by their owner alone. The folder that they lie in keeps others out as before.
    """
    if os.getuid() != 0:
        return
    for path in (place, *below(place)):
        status = path.lstat()
        wanted = 0o5 if stat.S_ISDIR(status.st_mode) else 0o4
        if stat.S_ISLNK(status.st_mode) or status.st_mode & wanted == wanted:
            continue
        if status.st_gid != USER or status.st_mode >> 3 & wanted != wanted:
            os.chown(path, -1, USER)
            path.chmod(stat.S_IMODE(status.st_mode) | wanted << 3)


def below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in (*folders, *files))
