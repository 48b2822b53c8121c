"""What the image of a bento is made of: the files that its build reads, the Dockerfile, and a key that stands for both.

The Dockerfile is the one of `bentoml containerize`. Models are never part of an image, and source only where the build
itself reads it: both are mounted when it runs, so bentos that ask for the same packages have one image. It is made in
two steps, the ground (what the system is to have) and, on it, the Python packages: grounds are few, and long in making.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import shlex
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

import router
from router.card import read_card
from router.core.artifacts import Kind
from router.launch.environment import own_pins
from torpor.errors import InvalidService

VENV_PYTHON = "/app/.venv/bin/python"  # of every image that BentoML's Dockerfile makes
# Labels. Containers inherit their image's, so what says whose an image is must not be what says whose a container is.
PLATFORM = "torpor.image"  # the id of the platform that made it
KEY, BENTO, BASE = "torpor.key", "torpor.bento", "torpor.base"
DOCKERFILE = "env/docker/Dockerfile"  # the bento's own rendering, which may ask for BuildKit
READ = ("image", "docker", "conda", "envs")  # of bento.yaml: what the Dockerfile is a function of
WHEN = 1577836800  # of all files in a context: layers are found again, and zip archives know no year before 1980
EXECUTABLE, PLAIN = 0o755, 0o644
FROM = re.compile(r"^FROM[ \t]+(?:--\S+[ \t]+)*(\S+).*$", re.MULTILINE | re.IGNORECASE)

PASSING = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from router.launch.container.containerfile import dockerfile, recipe
from torpor.errors import InvalidService
try:
    print(dockerfile(recipe(Path(sys.argv[2]), sys.argv[3])), end="")
except InvalidService as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""
REFUSED = 3

# Behind each FROM: no package cache stays in a layer, and a layer that a failed build left is known as the platform's.
HEAD = """\
ARG UV_NO_CACHE=1
ARG PIP_NO_CACHE_DIR=1
"""
TAIL = f"""
USER root
RUN uv pip install --python {VENV_PYTHON} {{pins}}
USER bentoml
"""
# Behind a ground: what it fetched.
CLEAN = "RUN rm -rf /var/cache/apt/archives/*.deb /var/cache/apt/*.bin"
CLEAN_LISTS = " /var/lib/apt/lists/*"  # these a later apt-get install would miss
GROUND_ENDS = re.compile(r"^COPY [^\n]*\./env/python \./env/python/$", re.MULTILINE)

Files = tuple[tuple[str, Path], ...]  # by their names in the context


@dataclass(frozen=True, slots=True)
class Recipe:
    """Of one bento's image, on one platform. `variables`: those of its build, with their values."""

    bento: Path
    tag: str
    platform: str
    files: Files
    variables: tuple[tuple[str, str], ...]
    key: str


def recipe(bento: Path, platform: str) -> Recipe:
    """Reads the files, and blocks. Raises InvalidService for a broken card, or a build that asks for a secret."""
    card = read_card(bento, Kind.BENTO)
    tag = f"{card.get('name')}:{card.get('version')}"
    try:
        files = tuple(sorted(_files(bento, card)))
        variables = tuple(_variables(card, tag))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidService(f"bento {tag} has a broken bento.yaml: {error!r}\nbuild it again") from None
    asked = {name: card.get(name) for name in READ}
    told = json.dumps([platform, HEAD, TAIL, CLEAN, own_pins(), asked], sort_keys=True, default=str)
    return Recipe(bento, tag, platform, files, variables, _digest(told, files))


def _files(bento: Path, card: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Folders too: an empty one may be what a COPY names."""
    for path in (bento / "env").rglob("*"):
        if (name := path.relative_to(bento).as_posix()) != DOCKERFILE:
            yield name, path
    found: set[Path] = set()
    for wanted in _sources(card):
        for path in (bento / "src").glob(wanted.strip("/") or "*"):
            found |= {path, *path.rglob("*")}
    home = bento.resolve()
    for path in found:
        if path.parent.resolve().is_relative_to(home):  # a pattern may say ../..
            yield path.relative_to(bento).as_posix(), path


def _sources(card: dict[str, Any]) -> list[str]:
    """Patterns below src, of what the build reads."""
    if card.get("image") is not None:
        return [str(name) for name in card["image"].get("build_include") or ()]
    docker = card.get("docker") or {}  # of the older form: a set-up script is run beside all of the bento
    return ["*"] if docker.get("setup_script") or docker.get("dockerfile_template") else []


def _variables(card: dict[str, Any], tag: str) -> Iterator[tuple[str, str]]:
    """Of the build only. A value that the bento declares is no secret to who may read the bento, and goes as an ARG,
    which the image's history tells; one that it does not declare is, and nothing but BuildKit would keep it."""
    for each in card.get("envs") or ():
        if each.get("stage") == "build":
            if each.get("value") in (None, ""):
                raise InvalidService(
                    f"the build of bento {tag} asks for the variable {each['name']}, whose value the bento does not "
                    "have\nbuild the image where it is known (bentoml containerize), and name it: image = 'NAME:TAG'"
                )
            yield str(each["name"]), str(each["value"])


def _digest(told: str, files: Files) -> str:
    digest = hashlib.sha256(told.encode())
    for name, path in files:
        digest.update(f"\0{name}\0{_mode(path):o}\0".encode())
        if path.is_symlink():
            digest.update(str(path.readlink()).encode())
        elif path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _mode(path: Path) -> int:
    """As it is in the context: what a umask made of it does not count."""
    return EXECUTABLE if path.is_symlink() or path.is_dir() or path.stat().st_mode & 0o100 else PLAIN


def dockerfile(made: Recipe) -> str:
    """As BentoML's generator makes it, with what the host runs on in the router's own versions behind it; no labels.

    Imports some 13 MB of BentoML: `dockerfile_of` has a passing process do it. Raises InvalidService.
    """
    try:
        text = _generated(made.bento)
    except Exception as error:  # the edge to BentoML's generator, and to a template of the user's own
        reason = str(error).partition("\n")[0]
        raise InvalidService(f"no Dockerfile can be made of bento {made.tag}: {reason}\nbuild it again") from None
    begin = head(made)
    return FROM.sub(lambda line: f"{line[0]}\n{begin}", text) + TAIL.format(pins=shlex.join(own_pins()))


def head(made: Recipe) -> str:
    """What is put behind a FROM."""
    return beginning(made.platform) + "".join(f"ARG {name}={shlex.quote(value)}\n" for name, value in made.variables)


def beginning(platform: str) -> str:
    return labels({PLATFORM: platform}) + HEAD


@dataclass(frozen=True, slots=True)
class Ground:
    """The part of an image that bentos with other packages have too. `files`: what it reads."""

    text: str
    files: Files
    key: str


def divided(made: Recipe, text: str) -> tuple[Ground | None, str]:
    """A Dockerfile's ground, and the rest, which wants a FROM; None where it is not made as BentoML makes them."""
    end = GROUND_ENDS.search(text)
    if end is None or len(FROM.findall(text)) != 1:
        return None, text
    rest = text[end.start() :]
    ground = text[: end.start()] + CLEAN + ("" if "apt" in rest else CLEAN_LISTS) + "\n"
    files = tuple((name, path) for name, path in made.files if not name.startswith(("env/python", "src")))
    return Ground(ground, files, _digest(ground, files)), rest


def onto(made: Recipe, ground: str, rest: str) -> str:
    """The rest of a Dockerfile on the image of its ground, by its id."""
    return f"FROM {ground}\n{head(made)}{rest}"


async def dockerfile_of(made: Recipe) -> str:
    """The same, made by a process that ends with it. Raises InvalidService."""
    root = str(Path(router.__file__).parent.parent)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", PASSING, root, str(made.bento), made.platform),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=made.bento,  # BentoML reads no template from outside of it
    )
    try:
        text, said = await process.communicate()
    except BaseException:
        process.kill()
        with anyio.CancelScope(shield=True):
            await process.wait()
        raise
    if process.returncode == REFUSED:
        raise InvalidService(said.decode().strip())
    if process.returncode != 0:  # BentoML or what it reads with stumbled over something in the bento
        reason = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise InvalidService(f"no Dockerfile can be made of bento {made.tag}: {reason}\nbuild it again")
    return text.decode()


def labels(told: dict[str, str]) -> str:
    return "LABEL " + " ".join(f"{name}={json.dumps(value)}" for name, value in told.items()) + "\n"


def _generated(bento: Path) -> str:
    from _bentoml_impl.docker import generate_dockerfile
    from bentoml._internal.bento.bento import BaseBentoInfo, BentoInfo, BentoInfoV2
    from bentoml._internal.bento.build_config import DockerOptions
    from bentoml._internal.container import split_envs_by_stage
    from bentoml._internal.container.generate import generate_containerfile
    from bentoml._internal.utils.cattr import bentoml_cattr

    with (bento / "bento.yaml").open("rb") as card:
        told = BaseBentoInfo.from_yaml_file(card)
    plain: dict[str, Any] = {"enable_buildkit": False, "add_header": False}
    if isinstance(told, BentoInfoV2):
        envs, _ = split_envs_by_stage(told.envs)
        return str(generate_dockerfile(told.image, bento, **plain, envs=envs, secret_envs=[]))
    assert isinstance(told, BentoInfo)
    docker = bentoml_cattr.unstructure(told.docker)
    if docker.get("dockerfile_template") is not None:
        docker["dockerfile_template"] = "env/docker/Dockerfile.template"
    options = DockerOptions(**docker)
    context = str(bento)
    made = generate_containerfile(docker=options, build_ctx=context, conda=told.conda, bento_fs=bento, **plain)
    return str(made)


def base_of(text: str) -> str:
    """The image that the last part of a Dockerfile begins with."""
    return str(FROM.findall(text)[-1])


def pack(text: str, files: Files, place: Path) -> None:
    """Writes a context: the same files are the same bytes. Blocks."""
    with tarfile.open(place, "w") as tar:
        written = tarfile.TarInfo("Dockerfile")
        written.size, written.mtime, written.mode = len(text.encode()), WHEN, PLAIN
        tar.addfile(written, io.BytesIO(text.encode()))
        for name, path in files:
            _add(tar, name, path)


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    entry = tar.gettarinfo(path, name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = WHEN, _mode(path)
    if entry.islnk():  # a second name of a file that is there: it comes as a file of its own
        entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
    if entry.isreg():
        with path.open("rb") as file:
            tar.addfile(entry, file)
    else:
        tar.addfile(entry)
