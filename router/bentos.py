"""The bentos that were uploaded: unpacked with distrust, published by one rename."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import yaml  # bentoml brings it
from bentoml._internal.tag import Tag
from bentoml.exceptions import BentoMLException

from router.launch.environment import requirements
from router.shell.deploys import Needs
from torpor.errors import BadRequest, BodyTooLarge, InvalidService, ModelNotFound, NotFound

UPLOAD_MAX = 2 << 30  # bytes of one tar
UNPACKED_MAX = 4 << 30  # bytes of its files
FILES_MAX = 50_000
PART = re.compile(r"[a-z0-9A-Z](?:[a-z0-9A-Z._-]{0,126}[a-z0-9A-Z])?")


class Bentos:
    """`<folder>/<name>/<version>`, each a bento's folder as `bentoml build` makes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        """Takes a tar of the bento's folder; the tag. One that is here already stays as it is."""
        tag = f"{name}:{version}"
        try:
            self.path(tag)
        except NotFound:
            await self._receive(name, version, stream)
        return tag

    async def _receive(self, name: str, version: str, stream: AsyncIterator[bytes]) -> None:
        part = Path(tempfile.mkdtemp(dir=self._folder / ".parts"))
        try:
            size = 0
            async with await anyio.open_file(part / "tar", "wb") as file:
                async for chunk in stream:
                    size += len(chunk)
                    if size > UPLOAD_MAX:
                        raise BodyTooLarge(
                            f"the bento is larger than {UPLOAD_MAX} bytes\nkeep models in the model store"
                        )
                    await file.write(chunk)
            await anyio.to_thread.run_sync(_unpack, part / "tar", part / "bento")
            target = self._folder / name / version
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                (part / "bento").rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def needs(self, tag: str) -> Needs:
        """What running the bento takes. Raises InvalidService, or ModelNotFound for a model not in the store."""
        path = self.path(tag)
        try:
            manifest: dict[str, Any] = yaml.load((path / "bento.yaml").read_text(), Loader=_loader())
        except (OSError, yaml.YAMLError) as error:
            raise InvalidService(f"bento {tag} has no readable bento.yaml: {error}\nbuild it again") from None
        if not isinstance(manifest, dict) or not isinstance(manifest.get("service"), str):
            raise InvalidService(f"bento {tag} names no service in its bento.yaml\nbuild it again")
        for model in manifest.get("models") or []:
            _check_model(str(model["tag"]), tag)
        listed = _listed(path)
        required = tuple(env["name"] for env in manifest.get("envs") or [] if env.get("value") in (None, ""))
        return Needs(
            folder=path / "src",
            bento=path,
            target=manifest["service"],
            requirements=requirements(listed),
            listed=listed,
            required_env=required,
        )


def _loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_model(model: str, bento: str) -> None:
    import bentoml

    try:
        bentoml.models.get(Tag.from_str(model))
    except BentoMLException:
        raise ModelNotFound(
            f"bento {bento} needs the model {model}, which is not in the model store\n"
            f"export it first: torpor export SOURCE --name {model.partition(':')[0]}"
        ) from None


def _listed(path: Path) -> Path | None:
    """The file that lists the bento's Python packages: the one with every version locked where there is one."""
    folder = path / "env" / "python"
    return next((f for f in (folder / "requirements.lock.txt", folder / "requirements.txt") if f.is_file()), None)


def _unpack(tar: Path, target: Path) -> None:
    """Files and folders only, inside of the target only, within the bounds."""
    target.mkdir()
    files, size = 0, 0
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                files += 1
                size += member.size
                if files > FILES_MAX or size > UNPACKED_MAX:
                    raise BodyTooLarge(
                        f"the bento holds more than {FILES_MAX} files or {UNPACKED_MAX} bytes\nexclude some of it"
                    )
                if not (member.isfile() or member.isdir()):
                    raise BadRequest(f"{member.name!r} in the archive is neither file nor folder\nresolve links first")
                archive.extract(member, target, filter="data")
    except tarfile.TarError as error:
        raise BadRequest(f"the body is not a bento's tar: {error}\nupload with torpor deploy") from None
    if not (target / "bento.yaml").is_file():
        raise BadRequest("the archive has no bento.yaml at its top\nupload a bento's folder as bentoml build makes it")
