"""Tars that somebody sent: read with distrust. Files and folders only, inside of the target only, within bounds."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from router.card import card, parsed
from router.core.artifacts import Kind
from router.disk import TAKES_NOTHING
from torpor.errors import BadRequest, BodyTooLarge, InternalError

BLOCK = 512  # bytes; a tar ends with two empty blocks (POSIX.1-2017, pax)
# A name that no file can have, or that another file of the archive has made impossible.
IMPOSSIBLE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
CARD_MAX = 16 << 20  # bytes of a bento.yaml or a model.yaml
SENDERS = {Kind.BENTO: "torpor deploy or bentoml push", Kind.MODEL: "bentoml models push"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one upload may be."""

    upload: int = 2 << 30  # bytes of the tar
    unpacked: int = 4 << 30  # bytes of its files
    files: int = 50_000  # files and folders


def unpack(tar: Path, target: Path, bounds: Bounds, kind: Kind = Kind.BENTO) -> None:
    """Files and folders only, inside of the target only, within the bounds, and the whole archive. Blocks."""
    target.mkdir()
    _each(tar, bounds, kind, lambda archive, member: take(archive, member, target))
    if not (target / card(kind)).is_file():
        raise _no_card(kind)


def look(tar: Path, bounds: Bounds, kind: Kind) -> dict[str, Any]:
    """Checks an archive without unpacking it; what its card says. Blocks."""
    names: set[PurePosixPath] = set()
    found: list[bytes] = []

    def see(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        inside = checked(member)
        if member.isreg():
            if inside in names:
                raise BadRequest(f"{member.name!r} is in the archive twice\nname every file once")
            names.add(inside)
        if inside == PurePosixPath(card(kind)) and member.isreg():
            source = archive.extractfile(member)
            assert source is not None
            found.append(source.read(CARD_MAX))

    _each(tar, bounds, kind, see)
    if not found:
        raise _no_card(kind)
    return parsed(found[0], kind)


def _each(tar: Path, bounds: Bounds, kind: Kind, see: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> None:
    files, size = 0, 0
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # all that were seen, which nobody reads
                files += 1
                size += member.size
                if files > bounds.files or size > bounds.unpacked:
                    raise BodyTooLarge(
                        f"the {kind} holds more than {bounds.files} files or {bounds.unpacked} bytes\n"
                        "exclude some of it"
                    )
                see(archive, member)
        if not whole(tar):
            raise tarfile.ReadError("it is cut off")
    except tarfile.TarError as error:
        raise _no_tar(kind, error) from None
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:  # sizes, numbers and nests that cannot be
        raise _no_tar(kind, error) from None


def checked(member: tarfile.TarInfo) -> PurePosixPath:
    """Where it belongs; nothing of a member but its name and its bytes is believed."""
    if not (member.isreg() or member.isdir()) or member.size < 0:
        raise BadRequest(f"{member.name!r} in the archive is neither file nor folder\nresolve links first")
    inside = PurePosixPath(member.name)
    if inside.is_absolute() or ".." in inside.parts:
        raise BadRequest(f"{member.name!r} in the archive leads out of it\nuse names relative to its folder")
    return inside


def take(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    inside = checked(member)
    try:
        if member.isdir():
            (target / inside).mkdir(parents=True, exist_ok=True)
        else:
            write(archive, member, target / inside)
    except OSError as error:
        if error.errno in IMPOSSIBLE:
            raise BadRequest(f"{member.name!r} in the archive: {error.strerror}\nname every file once") from None
        if error.errno in TAKES_NOTHING:
            raise
        raise InternalError(f"the archive cannot be kept: {error.strerror}\nmake room in {target.parent}") from error


def write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())  # an endpoint that was deployed survives a power cut, and so must its bento


def whole(tar: Path) -> bool:
    """Whether a tar has its end: `tarfile` takes one that is cut between two members for a shorter one."""
    with tar.open("rb") as file:
        file.seek(-min(2 * BLOCK, tar.stat().st_size), os.SEEK_END)
        return file.read() == bytes(2 * BLOCK)


def check_tag(found: dict[str, Any], kind: Kind, name: str, version: str) -> None:
    """Raises BadRequest for a bento or model that is another than its address says."""
    own = (str(found.get("name")), str(found.get("version")))
    if own != (name, version):
        raise BadRequest(f"the archive holds the {kind} {':'.join(own)}\nsend it as that, not as {name}:{version}")


def same(one: Path, other: Path, ignored: str) -> bool:
    """Whether two folders hold the same files with the same bytes, but for one name at their top. Blocks."""
    here, there = _files(one, ignored), _files(other, ignored)
    if here.keys() != there.keys():
        return False
    return all(_equal(here[name], there[name]) for name in here)


def _files(folder: Path, ignored: str) -> dict[str, Path]:
    return {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not _ours(path.relative_to(folder), ignored)
    }


def _ours(path: Path, ignored: str) -> bool:
    """What torpor and Python write into a bento's folder: links to models, compiled sources."""
    linked = path.parts[0] == "models" and path.name == "latest"
    return path.parts == (ignored,) or path.suffix == ".pyc" or linked


def _equal(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(1 << 20):
            if chunk != second.read(1 << 20):
                return False
    return True


def size_of(folder: Path) -> int:
    """Bytes of its files; links count nothing. Blocks."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            if not path.is_symlink() and path.is_file():
                total += path.stat().st_size
    return total


def _no_card(kind: Kind) -> BadRequest:
    return BadRequest(f"the archive has no {card(kind)} at its top\nupload a {kind}'s folder as bentoml makes it")


def _no_tar(kind: Kind, error: Exception) -> BadRequest:
    return BadRequest(f"the body is not a {kind}'s tar: {error}\nupload with {SENDERS[kind]}")
