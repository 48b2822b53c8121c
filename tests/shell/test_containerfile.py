"""What a bento's image is made of: the same packages are the same image, models and source are in none."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.launch.container import containerfile
from router.launch.container.containerfile import Recipe, dockerfile_of, pack, recipe
from router.launch.environment import own_pins
from tests.containers.bentos import bento
from torpor.errors import InvalidService

PLATFORM = "of-tests"


def made(folder: Path, platform: str = PLATFORM, **told: Any) -> Recipe:
    return recipe(bento(folder, **told).bento, platform)


def names(found: Recipe) -> list[str]:
    return [name for name, path in found.files if path.is_file()]


def test_bentos_with_the_same_packages_have_one_image_whatever_their_source_and_models(tmp_path: Path) -> None:
    assert made(tmp_path, name="one").key == made(tmp_path, name="two").key


@pytest.mark.parametrize(
    "told",
    [
        {"requirements": "numpy\n"},
        {"base_image": "debian:12"},
        {"commands": ["apt-get install cowsay"]},
        {"post_commands": ["true"]},
        {"envs": ({"name": "A", "value": "1"},)},
        {"files": {"env/docker/script__1": "true"}},
        {"build_include": ["data"], "files": {"src/data/words": "a"}},
    ],
)
def test_what_a_build_reads_makes_another_image(tmp_path: Path, told: dict[str, Any]) -> None:
    assert made(tmp_path / "other", **told).key != made(tmp_path).key


def test_another_platform_or_other_versions_of_the_host_have_images_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made(tmp_path).key
    assert made(tmp_path, platform="of-others").key != before
    monkeypatch.setattr(containerfile, "own_pins", lambda: ["uvloop==0"])
    assert made(tmp_path).key != before


def test_what_a_mask_made_of_modes_does_not_count_and_what_can_be_run_does(tmp_path: Path) -> None:
    needs = bento(tmp_path)
    before = recipe(needs.bento, PLATFORM).key
    script = needs.bento / "env" / "docker" / "entrypoint.sh"
    script.chmod(0o600)
    assert recipe(needs.bento, PLATFORM).key == before
    script.chmod(0o755)
    assert recipe(needs.bento, PLATFORM).key != before


def test_a_build_reads_neither_models_nor_source_that_it_does_not_name(tmp_path: Path) -> None:
    assert names(made(tmp_path)) == ["env/docker/entrypoint.sh", "env/python/requirements.txt"]


def test_a_build_reads_the_source_that_it_names(tmp_path: Path) -> None:
    files = {"src/wheels/a.whl": "a", "src/data/deep/words": "b", "src/one.txt": "c", "src/two.md": "d"}
    found = made(tmp_path, files=files, build_include=["wheels", "data/", "*.txt"])
    assert names(found)[2:] == ["src/data/deep/words", "src/one.txt", "src/wheels/a.whl"]


@pytest.mark.parametrize("pattern", ["../../secret", "../../*", "link/*"])
def test_nothing_outside_of_a_bento_comes_into_its_image(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "secret").write_text("the host's own")
    needs = bento(tmp_path, build_include=[pattern])
    (needs.bento / "src" / "link").symlink_to(tmp_path)
    found = recipe(needs.bento, PLATFORM)
    assert [name for name, _ in found.files if "secret" in name] == []


def test_a_link_comes_as_a_link(tmp_path: Path) -> None:
    needs = bento(tmp_path, build_include=["link"])
    (needs.bento / "src" / "link").symlink_to("/etc/shadow")
    found = recipe(needs.bento, PLATFORM)
    pack("FROM it\n", found.files, tmp_path / "context.tar")
    with tarfile.open(tmp_path / "context.tar") as tar:
        link = tar.getmember("src/link")
    assert (link.issym(), link.linkname) == (True, "/etc/shadow")


def test_the_same_context_is_the_same_bytes(tmp_path: Path) -> None:
    """Else the engine would not find a step's layer again."""
    for place, at in (("one", 1_000_000_000), ("two", 1_600_000_000)):
        needs = bento(tmp_path / place, name="it")
        for path in needs.bento.rglob("*"):
            os.utime(path, (at, at))
        pack("FROM it\n", recipe(needs.bento, PLATFORM).files, tmp_path / f"{place}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_dockerfile_is_bentomls_with_what_the_host_runs_on_behind_it(tmp_path: Path) -> None:
    text = asyncio.run(dockerfile_of(made(tmp_path, commands=["apt-get install cowsay"])))
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("FROM")).startswith("FROM docker.io/library/python:3.11-slim")
    assert lines.index("RUN apt-get install cowsay") < lines.index(
        'ENTRYPOINT [ "/home/bentoml/bento/env/docker/entrypoint.sh" ]'
    )
    [installed] = [number for number, line in enumerate(lines) if line.startswith("RUN uv pip install --python /app/")]
    assert all(pin in lines[installed] for pin in own_pins())
    assert (lines[installed - 1], lines[installed + 1]) == ("USER root", "USER bentoml")
    assert "--mount" not in text


def test_a_variable_of_the_build_that_the_bento_declares_is_there_while_it_is_built(tmp_path: Path) -> None:
    envs = ({"name": "INDEX", "value": "it's here", "stage": "build"}, {"name": "MODE", "value": "fast"})
    lines = asyncio.run(dockerfile_of(made(tmp_path, envs=envs))).splitlines()
    assert "ARG INDEX='it'\"'\"'s here'" in lines
    assert "ENV INDEX=$INDEX" not in lines
    assert "ENV MODE=$MODE" in lines


def test_a_variable_of_the_build_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidService) as refused:
        made(tmp_path, envs=({"name": "TOKEN", "stage": "build"},))
    first, second = str(refused.value).split("\n")
    assert "TOKEN" in first
    assert "image = 'NAME:TAG'" in second


def test_a_broken_card_is_refused(tmp_path: Path) -> None:
    needs = bento(tmp_path)
    (needs.bento / "bento.yaml").write_text("service: it\nname: it\nversion: '1'\nimage: 7\n")
    with pytest.raises(InvalidService, match="broken"):
        recipe(needs.bento, PLATFORM)


def test_a_card_that_bentoml_cannot_read_is_refused_in_two_lines(tmp_path: Path) -> None:
    needs = bento(tmp_path)
    card = yaml.safe_load((needs.bento / "bento.yaml").read_text())
    del card["creation_time"], card["service"]
    card["image"]["python_version"] = ["no", "version"]
    card["services"] = 3
    (needs.bento / "bento.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(InvalidService) as refused:
        asyncio.run(dockerfile_of(recipe(needs.bento, PLATFORM)))
    assert len(str(refused.value).splitlines()) == 2


def older(folder: Path, **docker: Any) -> Path:
    """A bento in the older form, which has no `image`."""
    needs = bento(folder, files={"env/python/install.sh": "uv pip install -r requirements.txt\n"})
    card = yaml.safe_load((needs.bento / "bento.yaml").read_text())
    del card["image"], card["spec"]
    card |= {
        "name": "older",
        "docker": {"distro": "debian", "python_version": "3.11", **docker},
        "python": {"lock_packages": False},
        "conda": {},
        "runners": [],
        "apis": [],
    }
    (needs.bento / "bento.yaml").write_text(yaml.safe_dump(card))
    return needs.bento


def test_a_bento_in_the_older_form_has_an_image_too(tmp_path: Path) -> None:
    found = recipe(older(tmp_path, system_packages=["cowsay"]), PLATFORM)
    text = asyncio.run(dockerfile_of(found))
    assert [word for word in ("cowsay", own_pins()[0], "--mount") if word in text] == ["cowsay", own_pins()[0]]
    assert [name for name in names(found) if name.startswith(("src", "models"))] == []


def test_the_set_up_script_of_an_older_bento_finds_its_source(tmp_path: Path) -> None:
    found = recipe(older(tmp_path, setup_script="setup.sh"), PLATFORM)
    assert "src/service.py" in names(found)
    assert "RUN /home/bentoml/bento/env/docker/setup_script" in asyncio.run(dockerfile_of(found))


def test_an_older_bentos_own_template_is_used(tmp_path: Path) -> None:
    home = older(tmp_path, dockerfile_template="mine.j2")
    block = "{% block SETUP_BENTO_ENTRYPOINT %}\n{{ super() }}\nRUN mine\n{% endblock %}\n"
    (home / "env/docker/Dockerfile.template").write_text("{% extends bento_base_template %}\n" + block)
    assert "\nRUN mine\n" in asyncio.run(dockerfile_of(recipe(home, PLATFORM)))
