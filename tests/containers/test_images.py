"""Images on a real engine: built from bentos, given and completed, clear words where that fails, and nothing left."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import pytest
import yaml

from router.launch.container.api import ContainerApi
from router.launch.container.containerfile import BASE as BASE_LABEL
from router.launch.container.containerfile import KEY, PLATFORM
from router.launch.container.given import LOOKING
from router.launch.container.images import BUILT, GROUND, Images, bare, tags
from router.launch.environment import own_pins
from router.shell.request import Needs
from tests.containers.bentos import bento
from tests.containers.engine import BASE, asked, remove_labelled
from torpor.errors import DiskFull, EngineUnreachable, InvalidService, TorporError

T = TypeVar("T")
NETWORK = "host"  # the mirrors of a machine may be reached from there alone
MUCH = 10 << 20  # bytes
MINE = "torpor.tests.images"  # label of what these tests make beside
NOTHING = Needs(Path("/nowhere"), Path("/nowhere"), "")
SERVICE = """
import bentoml
@bentoml.service
class It:
    @bentoml.api
    def say(self) -> str:
        import emoji, subprocess
        return subprocess.check_output(["/usr/games/cowsay", emoji.emojize(":cow:")], text=True)
"""


@dataclass
class Here:
    """A platform of its own on the engine. `lines`: what was told."""

    engine: Path
    spool: Path
    platform: str = field(default_factory=lambda: f"test-{token_hex(4)}")
    lines: list[str] = field(default_factory=list)

    def run(self, work: Callable[[Images, ContainerApi], Awaitable[T]]) -> T:
        async def play() -> T:
            api = ContainerApi(self.engine)
            try:
                return await work(Images(api, self.platform, NETWORK, self.spool), api)
            finally:
                await api.close()

        return asyncio.run(play())

    def of(self, needs: Needs, given: str = "") -> str:
        self.lines.clear()
        return self.run(lambda images, _: images.of(needs, given, self.lines.append))

    def refused(self, needs: Needs, given: str = "") -> str:
        with pytest.raises(InvalidService) as error:
            self.of(needs, given)
        assert len(str(error.value).splitlines()) == 2
        return str(error.value)

    def left(self) -> list[dict[str, Any]]:
        return self.run(lambda _, api: api.images(f"{PLATFORM}={self.platform}"))

    def id(self, reference: str) -> str:
        found = self.run(lambda _, api: api.image(reference))
        assert found is not None
        return bare(found)

    def prints(self, image: str, *command: str) -> list[str]:
        """What a container of an image prints."""

        async def play(_: Images, api: ContainerApi) -> list[str]:
            config = {"Image": image, "Entrypoint": list(command), "Cmd": [], "Labels": {MINE: self.platform}}
            container = await api.create(f"torpor-test-{token_hex(6)}", config)
            try:
                await api.start(container)
                await api.wait(container)
                return await api.lines(container, 100)
            finally:
                await api.remove(container)

        return self.run(play)

    def make(self, tag: str, *steps: str) -> str:
        """The reference of a small image, by the test's own means."""
        text = "\n".join([*steps, f'LABEL {MINE}="{self.platform}"', ""]).encode()
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        name = f"{tag}-{self.platform}" if ":" in tag else f"{tag}:{self.platform}"
        params = {"t": f"localhost/{name}", "networkmode": NETWORK}
        headers = {"content-type": "application/x-tar"}
        done = asked(self.engine, "POST", "/build", params=params, content=out.getvalue(), headers=headers)
        assert '"error"' not in done.text, done.text
        return f"localhost/{name}"


@pytest.fixture
def here(engine: Path, base_image: str, tmp_path: Path) -> Iterator[Here]:
    made = Here(engine, tmp_path / "spool")
    try:
        yield made
        assert list(made.spool.glob("*")) == []
    finally:
        for label in (MINE, PLATFORM):
            remove_labelled(engine, f"{label}={made.platform}")


@dataclass
class Made:
    """A bento that asks for packages of the system and of Python, and its image."""

    here: Here
    needs: Needs
    image: str
    lines: list[str]


@pytest.fixture(scope="module")
def made(engine: Path, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("made")
    here = Here(engine, folder / "spool")
    (folder / "service.py").write_text(SERVICE)
    packages = {"packages": ["emoji"], "lock_packages": False}
    told = {"service": "service:It", "python": packages, "docker": {"system_packages": ["cowsay"]}}
    (folder / "bentofile.yaml").write_text(yaml.safe_dump(told))
    env = {**os.environ, "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    subprocess.run([bentoml, "build"], cwd=folder, env=env, check=True, capture_output=True)
    [card] = (folder / "home" / "bentos").glob("it/*/bento.yaml")
    needs = Needs(card.parent / "src", card.parent, "service:It")
    try:
        yield Made(here, needs, here.of(needs), list(here.lines))
    finally:
        for label in (MINE, PLATFORM):
            remove_labelled(engine, f"{label}={here.platform}")


def test_a_bentos_image_has_its_packages_and_those_of_its_system_and_what_the_host_runs_on(made: Made) -> None:
    assert any("hello" in line for line in made.here.prints(made.image, "/usr/games/cowsay", "hello"))
    script = "import emoji; from importlib.metadata import version as v; import sys; print(*map(v, sys.argv[1:]))"
    [told] = made.here.prints(made.image, "python", "-c", script, *(pin.partition("==")[0] for pin in own_pins()))
    assert told.split() == [pin.partition("==")[2] for pin in own_pins()]


def test_a_bentos_image_has_neither_its_source_nor_models_nor_the_installers_caches(made: Made) -> None:
    script = "ls -A /home/bentoml/bento; ls -A /root/.cache 2>/dev/null"
    found = made.here.prints(made.image, "/bin/sh", "-c", script)
    assert sorted(found) == ["Dockerfile", "env"]


def test_the_first_line_is_torpors_and_the_others_are_the_engines(made: Made) -> None:
    assert made.lines[0].startswith("making an image for bento it:")
    assert any(line.upper().startswith("STEP ") for line in made.lines)
    assert any("emoji" in line for line in made.lines)


def test_a_bento_with_other_source_and_the_same_packages_has_the_image_that_is_there(made: Made) -> None:
    (made.needs.bento / "src" / "service.py").write_text(SERVICE + "# changed\n")
    assert made.here.of(made.needs) == made.image
    assert made.here.lines == []


def test_a_given_image_that_has_everything_is_taken_as_it_is(made: Made) -> None:
    before = len(made.here.left())
    assert made.here.of(NOTHING, made.image) == made.image
    assert made.here.lines == [f"looking into the image {made.image}"]
    assert len(made.here.left()) == before


def test_a_given_image_gets_what_it_lacks_and_keeps_its_user(made: Made, here: Here) -> None:
    steps = ("USER root", "RUN uv pip uninstall uvloop", "USER bentoml")
    given = here.make("lacking", f"FROM {made.image}", *steps)
    image = here.of(NOTHING, given)
    [pin] = [pin for pin in own_pins() if pin.startswith("uvloop==")]
    assert f"adding to the image {given}: {pin}" in here.lines
    told = here.prints(image, "python", "-c", "import getpass, uvloop; print(uvloop.__version__, getpass.getuser())")
    assert told == [f"{pin.partition('==')[2]} bentoml"]
    assert here.of(NOTHING, given) == image
    assert here.lines == []


def test_a_given_image_whose_python_has_another_name_gets_the_usual_one(made: Made, here: Here) -> None:
    venv = "cd /app/.venv/bin && ln -sf $(readlink -f python) python3 && rm python python3.*"
    rest = "rm -f /usr/bin/python /usr/local/bin/python"
    given = here.make("python3", f"FROM {made.image}", "USER root", f"RUN {venv} && {rest}")
    image = here.of(NOTHING, given)
    assert here.prints(image, "python", "-c", "import uvloop, sys; print(sys.prefix)") == ["/app/.venv"]


def test_an_image_without_python_is_refused(here: Here) -> None:
    given = here.make("bare", f"FROM {BASE}", "RUN rm -f $(which python) /usr/bin/python3 /usr/local/bin/python3")
    assert "has no Python" in here.refused(NOTHING, given)
    assert here.left() == []


def pretending(line: str) -> tuple[str, ...]:
    """An image whose python only prints a line: an older one is not to be had here."""
    script = base64.b64encode(f"#!/bin/sh\necho '{line}'\n".encode()).decode()
    place = "/usr/local/bin/python"
    return f"FROM {BASE}", f"RUN rm -f {place}; echo {script} | base64 -d > {place}; chmod 755 {place}"


@pytest.mark.parametrize(
    ("python", "words"), [([3, 9, 2], "has Python 3.9.2"), ([3, 11, 2], "has neither pip nor uv to install it")]
)
def test_an_image_that_cannot_serve_is_refused(here: Here, python: list[int], words: str) -> None:
    told = {"python": python, "executable": "/x", "pip": False, "uv": False, "versions": {}}
    assert words in here.refused(NOTHING, here.make("unable", *pretending(json.dumps(told))))


def test_an_image_whose_python_does_not_run_is_refused_with_what_it_says(here: Here) -> None:
    assert "out of order" in here.refused(NOTHING, here.make("broken", *pretending("out of order")))
    looking = here.run(lambda _, api: api.labelled(f"{LOOKING}={here.platform}"))
    assert looking == []


def test_an_image_that_is_nowhere_is_refused_with_the_engines_words(here: Here) -> None:
    words = here.refused(NOTHING, "localhost:1/not/there:1")
    assert here.lines[0] == "pulling the image localhost:1/not/there:1"
    assert words.startswith("the image localhost:1/not/there:1 cannot be pulled: ")
    assert "localhost:1" in words.partition("cannot be pulled")[2]


def test_a_build_that_fails_tells_all_who_wait_its_last_lines_and_leaves_nothing(here: Here, tmp_path: Path) -> None:
    """Also where one of them has left."""
    needs = bento(tmp_path, commands=["echo kept", "sleep 1; echo the reason; exit 3"])

    async def play(images: Images, _: ContainerApi) -> list[str]:
        began = asyncio.Event()
        one = asyncio.ensure_future(images.of(needs, "", lambda line: began.set()))
        heard = [list[str](), list[str]()]
        others = [asyncio.ensure_future(images.of(needs, "", each.append)) for each in heard]
        await began.wait()
        one.cancel()
        told = await asyncio.gather(*others, return_exceptions=True)
        assert [type(each) for each in told] == [InvalidService, InvalidService]
        assert [sum(line.startswith("making an image") for line in each) for each in heard] == [1, 1]
        await asyncio.wait([one])
        return list(map(str, told))

    for words in here.run(play):
        assert words.startswith("the image of bento it:1 cannot be built: the reason | building at STEP ")
    assert here.left() == []


def test_packages_that_are_not_there_are_named(here: Here, tmp_path: Path) -> None:
    """What stays is whole: the part that does not depend on them."""
    assert "no-such-package-of-torpor" in here.refused(bento(tmp_path, requirements="no-such-package-of-torpor==1\n"))
    [left] = here.left()
    assert f"/{GROUND}:" in left["RepoTags"][0]


def test_a_base_image_that_is_nowhere_is_named(here: Here, tmp_path: Path) -> None:
    assert "localhost:1/base" in here.refused(bento(tmp_path, base_image="localhost:1/base"))


def test_a_full_disk_is_named_as_such(here: Here, tmp_path: Path) -> None:
    with pytest.raises(DiskFull):
        here.of(bento(tmp_path, commands=["head -c 9 /dev/zero > /dev/full"]))
    assert here.left() == []


def test_an_engine_that_is_down_is_named_as_such(tmp_path: Path) -> None:
    here = Here(tmp_path / "none.sock", tmp_path / "spool")
    for given in ("", "it:1"):
        with pytest.raises(EngineUnreachable):
            here.of(bento(tmp_path), given)


def test_a_build_that_all_have_left_leaves_nothing_half_made(here: Here, tmp_path: Path) -> None:
    """The engine ends it with the step that it is at, or, where it notices too late, makes a part whole."""

    async def play(images: Images, api: ContainerApi) -> None:
        sleeping = asyncio.Event()

        def hear(line: str) -> None:
            if line == "to sleep":
                sleeping.set()

        needs = bento(tmp_path, commands=["echo to sleep; sleep 1", "echo ended"])
        said = asyncio.ensure_future(images.of(needs, "", hear))
        await sleeping.wait()
        said.cancel()
        with pytest.raises(asyncio.CancelledError):
            await said
        with pytest.raises(InvalidService):  # it takes longer than the step that the other one was at
            await images.of(bento(tmp_path, name="later", commands=["sleep 3; exit 1"]), "", lambda line: None)
        left = await api.images(f"{PLATFORM}={here.platform}")
        assert [each for each in left if not tags(each)] == []

    here.run(play)


def test_what_is_left_of_a_failed_build_goes_with_the_next(here: Here, tmp_path: Path) -> None:
    """Docker keeps an image of each step."""
    label = f'LABEL {PLATFORM}="{here.platform}"'
    here.make("half", f"FROM {BASE}", label)
    here.make("half", f"FROM {BASE}", label, "ENV A=b")  # takes the name of the first
    assert len(here.left()) == 2
    here.refused(bento(tmp_path, base_image="localhost:1/base"))
    assert [each["RepoTags"] for each in here.left()] == [[f"localhost/half:{here.platform}"]]


def test_unused_are_those_of_the_platform_that_are_old_and_that_nothing_uses(here: Here) -> None:
    used, gone = f"used-{here.platform}", f"gone-{here.platform}"

    def mine(repository: str, key: str, base: str) -> str:
        told = f'LABEL {PLATFORM}="{here.platform}" {KEY}="{key}" {BASE_LABEL}="{base}"'
        return here.make(f"{repository}:{key}", f"FROM {base}", told)

    grounds = {key: mine(GROUND, f"ground-{key}", BASE) for key in (used, gone)}
    bentos = {key: mine(BUILT, key, here.id(grounds[key])) for key in (used, gone)}
    here.make(f"{BUILT}:theirs", f"FROM {BASE}", f'LABEL {PLATFORM}="another" {KEY}="theirs"')
    derived = here.make("derived", f"FROM {bentos[gone]}", "ENV A=b")

    async def play(images: Images, api: ContainerApi) -> None:
        assert await images.unused({used}, time.time() - 60) == []
        found = await images.unused({used}, time.time() + 60)
        assert [f"localhost/{each.name}" for each in found] == [bentos[gone], grounds[gone]]
        assert all(each.size < MUCH for each in found)  # without what they were built on
        assert [await images.remove(f"localhost/{each.name}") for each in found] == [True, True]
        assert await images.unused({used}, time.time() + 60) == []
        assert await api.image(derived) is not None

    here.run(play)


def test_an_image_that_a_container_is_made_of_stays(here: Here) -> None:
    name = here.make("held", f"FROM {BASE}", "ENV A=b")

    async def play(images: Images, api: ContainerApi) -> None:
        config = {"Image": name, "Entrypoint": ["true"], "Labels": {MINE: here.platform}}
        container = await api.create(f"torpor-test-{token_hex(6)}", config)
        with suppress(TorporError):
            assert not await images.remove(name)
        assert await api.image(name) is not None
        await api.remove(container)
        assert await images.remove(name)
        assert await api.image(name) is None

    here.run(play)
