"""The bentos that were uploaded: unpacked with distrust, published by one rename."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import yaml  # bentoml brings it
from bentoml._internal.tag import Tag
from bentoml.exceptions import BentoMLException

from router.disk import TAKES_NOTHING, disk
from router.launch.environment import requirements
from router.shell.request import Needs
from torpor.errors import BadRequest, BodyTooLarge, InternalError, InvalidService, ModelNotFound, NotFound

BLOCK = 512  # bytes; a tar ends with two empty blocks (POSIX.1-2017, pax)
# A name that no file can have, or that another file of the archive has made impossible.
IMPOSSIBLE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
PART = re.compile(r"[a-z0-9A-Z](?:[a-z0-9A-Z._-]{0,126}[a-z0-9A-Z])?")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one upload may be."""

    upload: int = 2 << 30  # bytes of the tar
    unpacked: int = 4 << 30  # bytes of its files
    files: int = 50_000  # files and folders


class Bentos:
    """`<folder>/<name>/<version>`, each a bento's folder as `bentoml build` makes it."""

    def __init__(self, folder: Path, bounds: Bounds = Bounds()) -> None:
        self._folder = folder
        self._bounds = bounds

    def open(self) -> None:
        """Makes the folder and clears what a killed upload left."""
        shutil.rmtree(self._folder / ".parts", ignore_errors=True)
        (self._folder / ".parts").mkdir(parents=True)

    def path(self, tag: str) -> Path:
        """Raises BadRequest for what is no tag, NotFound for a bento that is not here."""
        name, _, version = tag.partition(":")
        if not PART.fullmatch(name) or not PART.fullmatch(version):
            raise BadRequest(f"{tag!r} is not a bento's tag\nuse name:version")
        path = self._folder / name / version
        if not (path / "bento.yaml").is_file():
            raise NotFound(f"bento {tag} is not here\nupload it first: torpor deploy does")
        return path

    async def put(self, name: str, version: str, stream: AsyncIterator[bytes]) -> str:
        """Takes a tar of the bento's folder; the tag. One that is here already stays as it is.

        Raises BadRequest, BodyTooLarge or DiskFull, and leaves nothing of what it refuses or what did not come whole.
        """
        tag = f"{name}:{version}"
        try:
            self.path(tag)
        except NotFound:
            await self._receive(name, version, stream)
        return tag

    async def _receive(self, name: str, version: str, stream: AsyncIterator[bytes]) -> None:
        with disk(self._folder):
            part = Path(tempfile.mkdtemp(dir=self._folder / ".parts"))
            await self._receive_into(part, name, version, stream)

    async def _receive_into(self, part: Path, name: str, version: str, stream: AsyncIterator[bytes]) -> None:
        """Publishes what comes whole; the folder `part` is gone afterwards."""
        try:
            size = 0
            async with await anyio.open_file(part / "tar", "wb") as file:
                async for chunk in stream:
                    size += len(chunk)
                    if size > self._bounds.upload:
                        raise BodyTooLarge(
                            f"the bento is larger than {self._bounds.upload} bytes\nkeep models in the model store"
                        )
                    await file.write(chunk)
            await anyio.to_thread.run_sync(self._publish, part, name, version)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(shutil.rmtree, part, ignore_errors=True))

    def _publish(self, part: Path, name: str, version: str) -> None:
        unpack(part / "tar", part / "bento", self._bounds)
        check_tag(part / "bento", name, version)
        target = self._folder / name / version
        target.parent.mkdir(exist_ok=True)
        try:
            (part / "bento").rename(target)
        except OSError:
            if not target.is_dir():  # else the same came twice at once
                raise
        written(target.parent)

    def needs(self, tag: str) -> Needs:
        """What running the bento takes. Raises InvalidService, or ModelNotFound for a model not in the store."""
        path = self.path(tag)
        manifest = read_manifest(path)
        try:
            models = [str(model["tag"]) for model in manifest.get("models") or ()]
            of_replicas = [each for each in manifest.get("envs") or () if each.get("stage") != "build"]
            required = tuple(str(each["name"]) for each in of_replicas if each.get("value") in (None, ""))
            target = str(manifest["service"])
            python = str((manifest.get("image") or {}).get("python_version") or "")
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidService(f"bento {tag} has a broken bento.yaml: {error!r}\nbuild it again") from None
        for model in models:
            check_model(model, tag)
        listed = requirements_file(path)
        return Needs(
            folder=path / "src",
            bento=path,
            target=target,
            requirements=requirements(listed),
            listed=listed,
            required_env=required,
            python=python,
        )


def read_manifest(bento: Path) -> dict[str, Any]:
    """A bento's `bento.yaml`. Raises InvalidService."""
    try:
        manifest = yaml.load((bento / "bento.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise InvalidService(f"the bento has no readable bento.yaml: {reason}\nbuild it again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("service"), str):
        raise InvalidService("the bento's bento.yaml names no service\nbuild it again")
    return manifest


def check_tag(bento: Path, name: str, version: str) -> None:
    """Raises BadRequest for a bento that is another than its address says."""
    manifest = read_manifest(bento)
    own = (str(manifest.get("name")), str(manifest.get("version")))
    if own != (name, version):
        raise BadRequest(f"the archive holds the bento {':'.join(own)}\nsend it as that, not as {name}:{version}")


def check_model(model: str, bento: str) -> None:
    import bentoml

    try:
        bentoml.models.get(Tag.from_str(model))
    except BentoMLException:
        raise ModelNotFound(
            f"bento {bento} needs the model {model}, which is not in the model store\n"
            f"export it first: torpor export SOURCE --name {model.partition(':')[0]}"
        ) from None


def requirements_file(path: Path) -> Path | None:
    """The file that lists the bento's Python packages: the one with every version locked where there is one."""
    folder = path / "env" / "python"
    return next((f for f in (folder / "requirements.lock.txt", folder / "requirements.txt") if f.is_file()), None)


def unpack(tar: Path, target: Path, bounds: Bounds) -> None:
    """Files and folders only, inside of the target only, within the bounds, and the whole archive."""
    target.mkdir()
    files, size = 0, 0
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                files += 1
                size += member.size
                if files > bounds.files or size > bounds.unpacked:
                    raise BodyTooLarge(
                        f"the bento holds more than {bounds.files} files or {bounds.unpacked} bytes\nexclude some of it"
                    )
                take(archive, member, target)
        if not whole(tar):
            raise tarfile.ReadError("it is cut off")
    except tarfile.TarError as error:
        raise BadRequest(f"the body is not a bento's tar: {error}\nupload with torpor deploy") from None
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:  # sizes, numbers and nests that cannot be
        raise BadRequest(f"the body is not a bento's tar: {error}\nupload with torpor deploy") from None
    if not (target / "bento.yaml").is_file():
        raise BadRequest("the archive has no bento.yaml at its top\nupload a bento's folder as bentoml build makes it")


def take(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """One member; nothing of it but its name and its bytes is believed."""
    if not (member.isreg() or member.isdir()) or member.size < 0:
        raise BadRequest(f"{member.name!r} in the archive is neither file nor folder\nresolve links first")
    inside = PurePosixPath(member.name)
    if inside.is_absolute() or ".." in inside.parts:
        raise BadRequest(f"{member.name!r} in the archive leads out of it\nuse names relative to the bento's folder")
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
        raise InternalError(f"the bento cannot be kept: {error.strerror}\nmake room in {target.parent}") from error


def write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())  # an endpoint that was deployed survives a power cut, and so must its bento


def whole(tar: Path) -> bool:
    """Whether a tar has its end: `tarfile` takes one that is cut between two members for a shorter one."""
    with tar.open("rb") as file:
        file.seek(-min(2 * BLOCK, tar.stat().st_size), os.SEEK_END)
        return file.read() == bytes(2 * BLOCK)


def written(folder: Path) -> None:
    """Has a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
