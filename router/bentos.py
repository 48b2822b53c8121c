"""What running a bento takes: its folder with the models that it names, its packages, its variables."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bentoml._internal.tag import Tag
from bentoml.exceptions import BentoMLException

from router.card import read_card
from router.core.artifacts import PART, Kind, listed_models, split_tag
from router.depot.copies import Copies
from router.launch.environment import requirements
from router.shell.request import Needs
from torpor.errors import InvalidService, ModelNotFound, NotFound


class Bentos:
    """Those that were pushed, as folders. Everything here blocks."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    def path(self, tag: str) -> Path:
        """Raises BadRequest for what is no tag, NotFound for a bento that is not here."""
        name, version = split_tag(tag)
        path = self._copies.find(Kind.BENTO, name, version)
        if path is None:
            raise NotFound(f"bento {tag} is not here\nupload it first: torpor deploy does, or bentoml push {tag}")
        return path

    def needs(self, tag: str) -> Needs:
        """What running the bento takes. Raises InvalidService, or ModelNotFound for a model that is nowhere here."""
        path = self.path(tag)
        manifest = read_card(path, Kind.BENTO)
        models = [model for model, elsewhere in listed_models(manifest).items() if not elsewhere]
        try:
            of_replicas = [each for each in manifest.get("envs") or () if each.get("stage") != "build"]
            required = tuple(str(each["name"]) for each in of_replicas if each.get("value") in (None, ""))
            target = str(manifest["service"])
            python = str((manifest.get("image") or {}).get("python_version") or "")
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidService(f"bento {tag} has a broken bento.yaml: {error!r}\nbuild it again") from None
        places = self._bring_models(path, models, tag)
        listed = requirements_file(path)
        return Needs(
            folder=path / "src",
            bento=path,
            target=target,
            requirements=requirements(listed),
            listed=listed,
            required_env=required,
            python=python,
            models=places,
        )

    def _bring_models(self, bento: Path, models: list[str], tag: str) -> tuple[Path, ...]:
        """Makes the models that lie elsewhere findable; where those lie.

        Where one of them was pushed, the bento has a model store of its own: BentoML looks into no other then. Else all
        are in the router's own model store, in which its replicas look. Raises ModelNotFound.
        """
        folder = bento / "models"
        wanted = {model: model.partition(":")[::2] for model in models}
        missing = {model: at for model, at in wanted.items() if not comes_with(folder.joinpath(*at))}
        pushed = {m: self._copies.find(Kind.MODEL, *at) for m, at in missing.items() if all(map(PART.fullmatch, at))}
        found = {model: pushed.get(model) or own_model(model, tag) for model in missing}
        if any(pushed.values()) or (missing and len(missing) < len(wanted)):
            for model, place in found.items():
                link(folder.joinpath(*wanted[model]), place)
            for name, version in wanted.values():
                rewrite(folder / name / "latest", version)
        latest = (place.parent / "latest" for place in found.values())
        return (*found.values(), *(each for each in latest if each.is_file()))


def comes_with(model: Path) -> bool:
    """Whether a model is in the bento's own archive."""
    return not model.is_symlink() and (model / "model.yaml").is_file()


def own_model(model: str, bento: str) -> Path:
    """In the router's own model store. Raises ModelNotFound."""
    import bentoml

    try:
        return Path(bentoml.models.get(Tag.from_str(model)).path)
    except (BentoMLException, ValueError):
        raise ModelNotFound(
            f"bento {bento} needs the model {model}, which is not in the model store\n"
            f"push it (bentoml models push {model}), or export it: torpor export SOURCE --name {model.split(':')[0]}"
        ) from None


def link(place: Path, target: Path) -> None:
    """A symbolic link, made in one step, also in place of one that leads elsewhere."""
    if place.is_symlink() and place.readlink() == target:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent.parent, prefix=".") as beside:
        made = Path(beside, "link")
        made.symlink_to(target)
        made.replace(place)


def rewrite(path: Path, text: str) -> None:
    """A small file, changed in one step, if at all."""
    if path.is_file() and path.read_text() == text:
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent.parent, prefix=".")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(name, path)


def requirements_file(path: Path) -> Path | None:
    """The file that lists the bento's Python packages: the one with every version locked where there is one."""
    folder = path / "env" / "python"
    return next((f for f in (folder / "requirements.lock.txt", folder / "requirements.txt") if f.is_file()), None)
