"""From a service folder, a `module:Class` or a tag to a bento's folder, and from that to a tar.

Building runs in a process of its own (`python -P -m torpor.client.bento`): it imports the user's service.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torpor.errors import InvalidService, ModelNotFound

SHOWN = 6  # last lines of a failed build
CHUNK = 1 << 18  # bytes


@dataclass(frozen=True, slots=True)
class Built:
    """A bento in the local store."""

    tag: str
    folder: Path


def build(source: str | Path) -> Built:
    """Builds a service folder or `module:Class` (from the working directory), or finds a built bento by its tag.

    Raises InvalidService, or ModelNotFound when the service names a model that is not in the model store.
    """
    command = [sys.executable, "-P", "-m", "torpor.client.bento", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "BENTOML_DO_NOT_TRACK": "True"})
    answer = done.stdout.rpartition("\n@torpor ")[2]
    if done.returncode == 0 and answer:
        found = json.loads(answer)
        return Built(found["tag"], Path(found["folder"]))
    if done.returncode == 3 and answer:
        fault = json.loads(answer)
        kind = ModelNotFound if fault["code"] == ModelNotFound.code else InvalidService
        raise kind(fault["error"])
    said = " | ".join(line for line in done.stderr.strip().splitlines()[-SHOWN:])
    raise InvalidService(f"{source} cannot be built: {said}\nmend the service; `bentoml build` shows the same")


def packed(folder: Path) -> Iterator[bytes]:
    """A tar of a bento's folder, in chunks; file modes and owners are left out, links are resolved."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w|", dereference=True) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = archive.gettarinfo(path, str(path.relative_to(folder)))
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            while buffer.tell() >= CHUNK:
                yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.BytesIO) -> bytes:
    out = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return out


def _main(source: str) -> int:
    try:
        found = _built(source)
    except InvalidService as error:
        print("\n@torpor " + json.dumps({"error": error.message, "code": error.code}))
        return 3
    except ModelNotFound as error:
        print("\n@torpor " + json.dumps({"error": error.message, "code": error.code}))
        return 3
    print("\n@torpor " + json.dumps({"tag": found.tag, "folder": str(found.folder)}))
    return 0


def _built(source: str) -> Built:
    import bentoml
    from bentoml.exceptions import BentoMLException, NotFound

    folder = Path(source)
    try:
        if folder.is_dir():
            bento = _from_folder(folder)
        elif ":" in source and _is_tag(source):
            bento = bentoml.bentos.get(source)
        else:
            bento = bentoml.bentos.build(source, build_ctx=os.getcwd(), python={"lock_packages": False})
    except NotFound as error:
        raise ModelNotFound(f"{error}\nexport the model first: torpor export SOURCE --name NAME") from error
    except BentoMLException as error:
        if "Model " in str(error) and "not be found" in str(error):
            raise ModelNotFound(f"{error}\nexport it first: torpor export SOURCE --name NAME") from error
        raise InvalidService(f"{source}: {error}\nmend the service; `bentoml build` shows the same") from error
    return Built(str(bento.tag), Path(str(bento.path)))


def _is_tag(source: str) -> bool:
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        bentoml.bentos.get(source)
    except (BentoMLException, ValueError):
        return False
    return True


def _from_folder(folder: Path) -> Any:
    import bentoml

    if (folder / "bentofile.yaml").is_file():
        return bentoml.bentos.build_bentofile(str(folder / "bentofile.yaml"), build_ctx=str(folder))
    if not (folder / "service.py").is_file():
        raise InvalidService(f"{folder} has neither bentofile.yaml nor service.py\nadd one of them")
    target = f"service:{_service_in(folder)}"
    return bentoml.bentos.build(target, build_ctx=str(folder), python={"lock_packages": False})


def _service_in(folder: Path) -> str:
    """The one service of `service.py`, by its attribute's name."""
    import importlib

    from _bentoml_sdk import Service

    sys.path.insert(0, str(folder.absolute()))
    try:
        module = importlib.import_module("service")
    except Exception as error:  # the user's module may raise anything
        raise InvalidService(f"{folder}/service.py raises {type(error).__name__}: {error}\nmend it") from error
    found = {name: each for name, each in vars(module).items() if isinstance(each, Service)}
    inner = {id(dep.on) for each in found.values() for dep in each.dependencies.values()}
    outer = [name for name, each in found.items() if id(each) not in inner]
    if len(outer) != 1:
        names = ", ".join(outer) or "none"
        raise InvalidService(f"{folder}/service.py holds not one service but {names}\nname it: service:Class")
    return outer[0]


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
