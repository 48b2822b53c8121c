"""The model store's side of an export: scratch space that dies with its process, and one atomic step at the end."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torpor.errors import BadRequest

if TYPE_CHECKING:
    from bentoml import Model

PREFIX = "torpor-export-"
LOCK = "lock"


def store_folder() -> Path:
    """BentoML's model store, as BENTOML_HOME says."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return Path(str(BentoMLContainer.model_store_dir.get()))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the store's file system for one export, temporary files of other libraries included.

    It goes with its owner, however that ends: a guard sees to it. It is locked while its owner lives; what is left
    where guards were killed too is removed when the next export begins.
    """
    # Beside the store, not in it: BentoML lists every folder in its store as a model.
    parent = store_folder().parent / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / f"{PREFIX}lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # no folder is seen between its making and its locking
        sweep(parent)
        folder = parent / f"{PREFIX}{secrets.token_hex(6)}"
        guard = guarded(folder)
        folder.mkdir(mode=0o700)
        owner = (folder / LOCK).open("w")
        fcntl.flock(owner, fcntl.LOCK_EX)
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir, os.environ["TMPDIR"] = str(folder), str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before[1]
        shutil.rmtree(folder, ignore_errors=True)
        owner.close()
        guard.communicate()  # it sees that the folder is gone


def guarded(folder: Path) -> subprocess.Popen[bytes]:
    """A process that removes the folder once this one has ended, or has closed the guard's standard input."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def sweep(parent: Path) -> list[Path]:
    """Removes the scratch folders whose owner is dead: the kernel has given their lock back. Returns them."""
    swept = []
    for folder in parent.glob(f"{PREFIX}*/"):
        if not folder.is_dir():
            continue
        try:
            with (folder / LOCK).open("w") as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder)
        except BlockingIOError:
            continue  # its owner lives
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
    return swept


def check_name(name: str) -> None:
    """Raises BadRequest unless `name` can name a model in BentoML's store."""
    from bentoml import Tag
    from bentoml.exceptions import BentoMLException

    try:
        plain = Tag.from_taglike(name).version is None
    except (BentoMLException, ValueError):
        plain = False
    if not plain:
        raise BadRequest(
            f"{name!r} cannot name a model.\n"
            "Use lower-case letters, digits, dots, dashes and underscores, 63 at most, and no version."
        )


def find(name: str, key: dict[str, Any]) -> Model | None:
    """The newest model of that name that was exported from the same things; None when there is none."""
    import bentoml
    from bentoml.exceptions import NotFound

    try:
        models = bentoml.models.list(name)
    except NotFound:
        return None
    same = [model for model in models if all(model.info.metadata.get(name) == value for name, value in key.items())]
    return max(same, key=lambda model: model.creation_time, default=None)


def keep(name: str, artifact: Path, card: dict[str, Any], work: Path) -> Model:
    """Moves an artifact into the store under a new version and makes it the latest. All or nothing.

    BentoML's own `create` copies into the store file by file; a kill in between leaves a folder that breaks
    `bentoml models list`. So it creates in a store inside `work`, and the finished model is renamed from there.
    """
    import bentoml
    from bentoml._internal.models import ModelStore

    staging = ModelStore(work / "store")
    labels = {"task": card["task"], "framework": "onnx"}
    with bentoml.models.create(name, labels=labels, metadata=card, _model_store=staging) as model:
        for path in artifact.iterdir():
            path.rename(Path(model.path) / path.name)
    final = store_folder() / model.tag.path()
    final.parent.mkdir(parents=True, exist_ok=True)
    (work / "store" / model.tag.path()).rename(final)
    make_latest(model.tag.name, str(model.tag.version))
    return bentoml.models.get(str(model.tag))


def make_latest(name: str, version: str) -> None:
    """Points NAME:latest at a version, in one step."""
    folder = store_folder() / name
    descriptor, path = tempfile.mkstemp(dir=store_folder().parent / "tmp")
    with os.fdopen(descriptor, "w") as latest:
        latest.write(version)
    os.replace(path, folder / "latest")


def size_of(path: Path) -> int:
    """Bytes of a file or of all files of a folder."""
    files: list[Path] = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)
