"""The wheel, installed into a venv of its own, runs the platform outside of any checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCE = ("torpor", "router", "models", "services")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
WITHIN = 180.0  # seconds of one command


@dataclass(frozen=True)
class Installed:
    """`bin` of the venv, and a working directory that is in no checkout."""

    bin: Path
    folder: Path
    env: dict[str, str]

    def run(self, *command: str) -> str:
        """What a command that has to succeed prints."""
        command = (str(self.bin / command[0]), *command[1:])
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=WITHIN, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, so that the checkout gets no build folder."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(REPOSITORY / name, copy)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(out), "-q"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel's torpor, and beside it what this interpreter has installed, so that nothing is downloaded."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, system_site_packages=True, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    python = str(home / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    # A path that a .pth names comes after the venv's own; the .pth files of that path are not read, so the
    # checkout, which an editable install names in one, stays out.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "bentoml").mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TORPOR_", "PYTHON"))}
    env |= {
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "TORPOR_DATA": str(folder / "data"),
    }
    return Installed(home / "bin", folder, env)


def test_the_wheel_carries_the_application_as_data_and_installs_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"torpor"}
    for wanted in ("py.typed", "cli/commands.py", "host/forkserver.py"):
        assert f"torpor/{wanted}" in names
    for folder in ("router", "models", "services"):
        here = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
        there = {name.removeprefix("torpor/_app/") for name in names if name.startswith(f"torpor/_app/{folder}/")}
        assert there == {path for path in here if "__pycache__" not in path}
    assert not [name for name in names if name.endswith(".pyc")]


def test_torpor_is_the_wheels_and_the_checkout_is_on_no_path(installed: Installed) -> None:
    found = installed.run("python", "-c", "import sys, torpor; print(torpor.__file__, *sys.path, sep='\\n')")
    first, *paths = found.splitlines()
    assert first.startswith(str(installed.bin.parent))
    assert str(REPOSITORY) not in paths
    installed.run("python", "-c", "import importlib.util as u; assert u.find_spec('router') is None")


def test_the_wheel_serves_an_example_far_from_any_checkout(installed: Installed) -> None:
    assert "Model endpoints that sleep" in installed.run("torpor", "--help")
    assert "SOURCE" in installed.run("torpor", "export", "--help")
    hello = shutil.copytree(REPOSITORY / "examples" / "hello_json", installed.folder / "hello")
    installed.run("torpor", "up", "--detach", "--port", "0")
    try:
        import json

        url = json.loads((installed.folder / "data" / "torpor.json").read_text())["url"]
        installed.env["TORPOR_URL"] = url
        installed.run("torpor", "deploy", str(hello), "--name", "hello")
        answer = httpx.post(f"{url}/endpoints/hello/greet", json={"person": {"name": "Ada"}}, timeout=60)
        assert answer.json() == {"text": "Hello, Ada!", "polyglot": False}
        (replica,) = json.loads(installed.run("torpor", "show", "hello", "--json"))["replicas"]
        environment = Path(f"/proc/{replica['pid']}/environ").read_bytes()
        assert b"_app" not in environment, "a replica inherits the application's folder"
    finally:
        installed.run("torpor", "down")
    assert not (installed.folder / "data" / "torpor.json").exists()


def test_the_wheels_platform_survives_what_its_own_chaos_does_to_it(installed: Installed) -> None:
    told = installed.run("torpor", "chaos", "--for", "3s", "--seed", "1").splitlines()
    assert told[-1] == "lost: nothing"
    assert " faults (seed 1)" in told[-2]
