"""The image of torpor, built once by the real engine from what the repository tracks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from tests.containers.engine import asked, remove_labelled
from tests.containers.infra.box import LABEL, Tool
from tests.system.running import REPOSITORY

PACKAGES = "localhost/torpor-test-packages"


@pytest.fixture(scope="session")
def tool(engine: Path) -> Tool:
    """The engine's own command line, as its users have it."""
    if "podman" in asked(engine, "GET", "/version").text.lower():
        return Tool(("podman", "--remote", "--url", f"unix://{engine}"), podman=True)
    return Tool(("docker", "--host", f"unix://{engine}"), podman=False)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has of this tree, and would take: as a fresh clone has it, with this tree's changes."""
    copy = tmp_path_factory.mktemp("tree")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, names):
        path = REPOSITORY / name.decode()
        if path.is_file():
            (copy / name.decode()).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy / name.decode())
    return copy


@pytest.fixture(scope="session")
def image(tool: Tool, tree: Path, engine: Path, base_image: str) -> Iterator[str]:
    """The reference of the image of infra/Containerfile. The layers of its packages stay with the engine, as one image
    with a name, for the next run.
    """
    run = token_hex(4)
    reference, label = f"localhost/torpor-test:{run}", f"{LABEL}={run}"
    try:
        before = tool.run("image", "inspect", "--format", "{{.Id}}", PACKAGES).stdout.strip()
        build(tool, tree, "--target", "packages", "-t", PACKAGES)
        build(tool, tree, "--label", label, "-t", reference)
        if before and before != tool.told("image", "inspect", "--format", "{{.Id}}", PACKAGES).strip():
            tool.run("image", "rm", before)
        yield reference
    finally:
        remove_labelled(engine, label)


def build(tool: Tool, tree: Path, *told: str) -> None:
    """The network `host`: what reaches this machine's mirrors may be nothing else."""
    how = ("--network", "host", *(("--format", "docker") if tool.podman else ()))
    tool.told("build", *how, *told, "-f", str(tree / "infra" / "Containerfile"), str(tree))
