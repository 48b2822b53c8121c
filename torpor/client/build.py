"""`python -P -m torpor.client.build SOURCE` builds a bento, or finds it, and prints where it is or what is wrong.

What can be wrong is looked for before BentoML is asked, so that the message names the place.
"""

from __future__ import annotations

import filecmp
import importlib
import json
import sys
import tempfile
import traceback
from functools import reduce
from pathlib import Path
from typing import Any

import attrs  # bentoml brings it
import bentoml
import yaml  # bentoml brings it
from _bentoml_sdk import Service
from bentoml._internal.bento import Bento
from bentoml._internal.bento.build_config import BentoBuildConfig
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException, NotFound
from bentoml.models import BentoModel
from cattrs import ClassValidationError, transform_error  # bentoml brings it

from torpor.client.bento import MARK
from torpor.errors import InvalidService, ModelNotFound, TorporError
from torpor.local import data_folder

CONFIGS = ("bentofile.yaml", "pyproject.toml")  # as BentoML looks for them
MANIFEST = "bento.yaml"
OF_ITSELF = ("version:", "creation_time:")  # lines of it that differ between builds of the same files


def built(source: str) -> Any:
    """The bento. Raises InvalidService or ModelNotFound."""
    folder = Path(source)
    if folder.is_dir():
        return from_folder(folder)
    if (found := in_store(source)) is not None:
        return found
    module, colon, _ = source.partition(":")
    top = Path(module.partition(".")[0])
    if not (colon and module and (top.is_dir() or top.with_suffix(".py").is_file())):
        raise InvalidService(
            f"{source!r} is no folder, no bento's tag (see `bentoml list`) and no module:Class\n"
            f"name one of them; folders and modules are looked for in {Path.cwd()}"
        )
    return made(Path.cwd(), source, configured(Path.cwd()))


def in_store(source: str) -> Any:
    try:
        return bentoml.bentos.get(source)
    except (BentoMLException, ValueError):
        return None


def from_folder(folder: Path) -> Any:
    """By its bentofile.yaml or [tool.bentoml.build] of its pyproject.toml, else the one service of its service.py."""
    config = configured(folder)
    if config is not None and config.service:
        return made(folder, config.service, config)
    if not (folder / "service.py").is_file():
        raise InvalidService(f"{folder} has neither bentofile.yaml nor service.py\nadd one of them")
    return made(folder, f"service:{the_service(folder)}", config)


def made(folder: Path, target: str, config: Any) -> Any:
    """A new bento of a target in a folder, or the newest one that holds the same."""
    service = imported(folder, target)
    check_models(service, [spec.tag for spec in config.models] if config is not None else ())
    if config is None:
        config = BentoBuildConfig(service=target, python={"lock_packages": False}, exclude=excluded(folder))
    config = attrs.evolve(config, service=target)
    scratch = Path(BentoMLContainer.tmp_bento_store_dir.get())
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder_of_build:  # a build that fails leaves its files
        BentoMLContainer.tmp_bento_store_dir.set(folder_of_build)
        new = Bento.create(build_config=config, build_ctx=str(folder)).save()
    for old in sorted(bentoml.bentos.list(new.tag.name), key=lambda each: each.info.creation_time, reverse=True):
        if old.tag != new.tag and same(Path(old.path), Path(new.path)):
            bentoml.bentos.delete(str(new.tag))
            return old
    return new


def configured(folder: Path) -> Any:
    """Its build configuration, or None where it has none. Raises InvalidService with all faults of it."""
    for path in (folder / name for name in CONFIGS):
        if not path.is_file() or (path.name == "pyproject.toml" and "[tool.bentoml" not in path.read_text()):
            continue
        try:
            return BentoBuildConfig.from_file(str(path))
        except ClassValidationError as error:
            faults = "; ".join(fault.replace(" @ $", "") for fault in transform_error(error))
        except yaml.YAMLError as error:
            faults = " ".join(str(error).split())
        except (BentoMLException, ValueError, TypeError) as error:
            faults = first_line(error)
        raise InvalidService(f"{path}: {faults}\nmend it; BentoML's documentation lists the keys")
    return None


def excluded(folder: Path) -> list[str]:
    """A build without a bentofile takes the whole folder; not so what is hidden, nor where bentos and torpor write."""
    stores = (Path(BentoMLContainer.bentoml_home.get()), data_folder())
    here = folder.absolute()
    return [".*/", *(f"/{store.relative_to(here)}/" for store in stores if store.is_relative_to(here))]


def the_service(folder: Path) -> str:
    """The one service of `service.py`, by its attribute's name; services that others depend on do not count."""
    module = module_of(folder, "service")
    found = {name: each for name, each in vars(module).items() if isinstance(each, Service)}
    inner = {id(dep.on) for each in found.values() for dep in each.dependencies.values()}
    outer: list[str] = [name for name, each in found.items() if id(each) not in inner]
    if not outer:
        raise InvalidService(f"{folder}/service.py has no class that is a @bentoml.service\nadd one")
    if len(outer) > 1:
        raise InvalidService(
            f"{folder}/service.py has several services: {', '.join(outer)}\n"
            f"add a bentofile.yaml that names one, such as `service: service:{outer[0]}`"
        )
    return outer[0]


def imported(folder: Path, target: str) -> Any:
    """The service that `module:attribute` names."""
    name, _, attribute = str(target).partition(":")
    name = name.removesuffix(".py").replace("/", ".")
    module = module_of(folder, name)
    if not attribute:
        found = [each for each in vars(module).values() if isinstance(each, Service)]
        service = found[0] if len(found) == 1 else None
    else:
        service = reduce(lambda value, part: getattr(value, part, None), attribute.split("."), module)
    if not isinstance(service, Service):
        raise InvalidService(f"{target} in {folder} is no @bentoml.service\nname the class: {name}:Class")
    return service


def module_of(folder: Path, name: str) -> Any:
    if str(folder.absolute()) not in sys.path:
        sys.path.insert(0, str(folder.absolute()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise InvalidService(f"{folder} has no module {name}\nname another, or mend the bentofile") from None
        raise InvalidService(f"{raised(folder, error)}\ninstall it beside torpor, or mend the import") from error
    except NotFound as error:
        raise ModelNotFound(f"{raised(folder, error)}\nexport it first: torpor export SOURCE --name NAME") from error
    except Exception as error:  # the user's module may raise anything
        raise InvalidService(f"{raised(folder, error)}\nmend it") from error


def raised(folder: Path, error: BaseException) -> str:
    """What a module raised, and where: the last line of the user's own."""
    own = [each for each in traceback.extract_tb(error.__traceback__) if Path(each.filename).is_relative_to(folder)]
    own += [each for each in traceback.extract_tb(error.__traceback__) if str(folder.absolute()) in each.filename]
    place = f"{folder}/{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else str(folder)
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}"
    text = error.msg if isinstance(error, SyntaxError) else first_line(error)
    return f"{place}: {type(error).__name__}: {text}"


def check_models(service: Any, more: Any) -> None:
    """Raises ModelNotFound with all models that the store lacks."""
    named = [str(m.tag) for s in service.all_services().values() for m in s.models if isinstance(m, BentoModel)]
    missing = []
    for tag in dict.fromkeys([*named, *map(str, more)]):
        try:
            bentoml.models.get(tag)
        except BentoMLException:
            missing.append(tag)
    if missing:
        name = missing[0].partition(":")[0]
        raise ModelNotFound(
            f"not in the model store (see `bentoml models list`): {', '.join(missing)}\n"
            f"export it first: torpor export SOURCE --name {name}"
        )


def same(one: Path, other: Path) -> bool:
    """Whether two bentos hold the same files, but for what differs between two builds of the same."""
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    if set(names) != {path.relative_to(other) for path in other.rglob("*") if path.is_file()}:
        return False
    if manifest(one) != manifest(other):
        return False
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names if str(name) != MANIFEST)


def manifest(bento: Path) -> list[str]:
    lines = (bento / MANIFEST).read_text().splitlines()
    return [line for line in lines if not line.startswith(OF_ITSELF)]


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def main(source: str) -> dict[str, str]:
    try:
        found = built(source)
    except TorporError as error:
        return {"error": error.message, "code": error.code}
    except Exception as error:  # the edge of the process
        traceback.print_exc()
        text = f"{source} cannot be built: {type(error).__name__}: {first_line(error)}"
        return {"error": text + "\nmend the service; `bentoml build` shows the same", "code": InvalidService.code}
    return {"tag": str(found.tag), "folder": str(found.path)}


if __name__ == "__main__":
    print(MARK + json.dumps(main(sys.argv[1])))
