"""Environments that are really made, by uv, for packages that the platform's own interpreter lacks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from router.launch.environment import Environments, unmet
from router.launch.orphans import reap
from tests.system import handmade
from tests.system.running import running
from torpor.errors import InvalidService

ROOT = Path(__file__).parents[2]
PACKAGE = "torpor-test-greeting"  # a wheel of our own: nothing is asked of an index for it


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with version 1.0 of the package: one module with one function."""
    folder = tmp_path_factory.mktemp("wheels")
    name = PACKAGE.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "def greet(name: str) -> str:\n    return f'hello {name}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={digest(text)},{len(text)}\n" for path, text in files.items())
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(path, text)
    return folder


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Place:
    """Environments in a folder of their own, and lists of requirements."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self.run = folder / "environments", folder / "run"
        self.run.mkdir()
        self.wheels = wheels
        self.lists = folder
        self.environments = Environments(self.folder, self.run)

    def listed(self, *lines: str) -> Path:
        path = self.lists / f"requirements-{len(list(self.lists.iterdir()))}.txt"
        path.write_text("\n".join((f"--find-links {self.wheels}", *lines)) + "\n")
        return path

    def made(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def place(tmp_path: Path, wheels: Path) -> Place:
    return Place(tmp_path, wheels)


def said(python: Path, code: str) -> str:
    """What an interpreter prints, without this process's own paths."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run([python, "-P", "-c", code], env=env, capture_output=True, text=True, check=True).stdout


BUILD = """
import asyncio, sys
from pathlib import Path
from router.launch.environment import Environments
folder, run, listed = map(Path, sys.argv[1:])
asyncio.run(Environments(folder, run).python(listed, lambda line: None))
"""


def test_a_build_that_was_killed_is_made_again_whole_and_shared_by_whoever_asks_for_the_same(place: Place) -> None:
    listed = place.listed(f"{PACKAGE}==1.0", "uvicorn==0.30.0", "attrs")
    command = [sys.executable, "-c", BUILD, *map(str, (place.folder, place.run, listed))]
    with subprocess.Popen(command, cwd=ROOT) as router:
        while not (list(place.folder.glob("*/own.txt")) and list(place.run.glob("installer-*.pid"))):
            assert router.poll() is None
        router.kill()
    assert len(reap(place.run)) == 1, "the installer that it left is ended"
    [half] = place.made()
    assert not (place.folder / half / "complete").exists()

    told: list[str] = []

    async def both() -> list[Path]:
        again = place.listed("attrs", "uvicorn==0.30.0", f"{PACKAGE}==1.0")
        return list(await asyncio.gather(*(place.environments.python(each, told.append) for each in (listed, again))))

    first, second = asyncio.run(both())
    assert first == second == place.folder / half / "bin" / "python"
    assert [line for line in told if line.startswith("making")] == [
        f"making an environment for {PACKAGE}==1.0, uvicorn==0.30.0"
    ]
    assert any(PACKAGE in line and line.startswith(" +") for line in told), told
    assert list(place.run.iterdir()) == []
    assert said(first, "import torpor_test_greeting as g; print(g.greet('a'))") == "hello a\n"
    own = "from importlib.metadata import version as v; print(v('bentoml'), v('uvicorn'), v('httptools'))"
    assert said(first, own) == said(Path(sys.executable), own), "the host runs on the router's own versions"
    seen = "import importlib.util as u; print([n for n in ('torpor', 'router', 'models', 'torch') if u.find_spec(n)])"
    assert said(first, seen) == "['torpor']\n", "neither the platform's packages nor its folders are the bento's"
    asyncio.run(place.environments.python(listed, told.append))
    assert len([line for line in told if line.startswith("making")]) == 1


def test_a_failed_install_leaves_nothing_and_says_the_installers_last_lines(place: Place) -> None:
    told: list[str] = []
    with pytest.raises(InvalidService) as raised:
        asyncio.run(place.environments.python(place.listed(f"{PACKAGE}==9.9"), told.append))
    what, remedy = raised.value.message.split("\n")
    assert what.startswith("the bento's packages cannot be installed: ")
    assert f"{PACKAGE}==9.9" in what
    assert told[-1] in what
    assert remedy == "mend the bento's python packages"
    assert (place.made(), list(place.run.iterdir())) == ([], [])


def test_a_caller_who_leaves_ends_the_installer_and_leaves_nothing(place: Place) -> None:
    async def scenario() -> int:
        listed = place.listed(f"{PACKAGE}==1.0")
        making = asyncio.ensure_future(place.environments.python(listed, lambda line: None))
        while not (left := list(place.run.glob("installer-*.pid"))):  # noqa: ASYNC110 - a file of the installer's
            await asyncio.sleep(0.001)
        making.cancel()
        await asyncio.wait([making])
        assert making.cancelled()
        return int(left[0].stem.rpartition("-")[2])

    installer = asyncio.run(scenario())
    assert not Path(f"/proc/{installer}").exists()
    assert (place.made(), list(place.run.iterdir())) == ([], [])


def test_what_the_platform_has_needs_no_environment(place: Place) -> None:
    def python(listed: Path | None) -> Path:
        return asyncio.run(place.environments.python(listed, lambda line: pytest.fail(line)))

    assert python(None) == Path(sys.executable)
    listed = place.listed("numpy>=2.0  # arrays", "# a comment", "", "colorama; sys_platform == 'win32'")
    assert python(listed) == Path(sys.executable)
    assert place.made() == []


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("numpy", False),
        ("NumPy>=2.0", False),
        ("numpy<2.0", True),
        ("bentoml[grpc]==1.4.39", False),
        (PACKAGE, True),
        (f"{PACKAGE}; python_version < '3'", False),
        ("numpy @ https://example.invalid/numpy.whl", True),
        ("./wheels/own-1.0-py3-none-any.whl", True),
        ("https://example.invalid/own-1.0-py3-none-any.whl", True),
    ],
)
def test_a_requirement_that_this_interpreter_lacks_is_seen(line: str, lacks: bool) -> None:
    assert unmet([line]) == ([line] if lacks else [])


def test_a_line_that_is_no_requirement_is_refused() -> None:
    with pytest.raises(InvalidService, match=r"'nump y>>2'.*\nmend its python packages"):
        unmet(["nump y>>2"])


SERVICE = """
import bentoml
import torpor_test_greeting

@bentoml.service
class Hello:
    @bentoml.api
    def hi(self, name: str) -> str:
        return torpor_test_greeting.greet(name)
"""


def test_a_service_with_a_package_of_its_own_is_deployed_and_its_environment_is_shared(
    tmp_path: Path, wheels: Path
) -> None:
    needs = f"--find-links {wheels}\n{PACKAGE}==1.0\n"
    lacking = f"--find-links {wheels}\n{PACKAGE}==9.9\n"
    with running(tmp_path) as platform:
        for name, requirements in (("own", needs), ("lacking", lacking)):
            handmade.upload(platform.url, name, handmade.bento(name, SERVICE, requirements=requirements))

        told = list(handmade.events(platform.url, {"name": "lacking", "bento": "lacking:1"}))
        assert told[-1]["event"] == "error"
        assert (told[-1]["status"], told[-1]["code"]) == (422, "invalid_service")
        assert f"{PACKAGE}==9.9" in told[-1]["error"]
        assert list((platform.data / "environments").iterdir()) == []

        told = list(handmade.events(platform.url, {"name": "first", "bento": "own:1"}))
        assert told[-1]["event"] == "deployed", told
        lines = [event["line"] for event in told if event["event"] == "log"]
        assert lines[0] == f"making an environment for {PACKAGE}==1.0"
        assert any("Installed" in line for line in lines), "the installer's progress reaches who deploys"

        told = list(handmade.events(platform.url, {"name": "second", "bento": "own:1"}))
        assert [event["event"] for event in told] == ["phase", "phase", "phase", "deployed"], "nothing to be made"
        for name in ("first", "second"):
            answer = httpx.post(f"{platform.url}/endpoints/{name}/hi", json={"name": "a"}, timeout=60)
            assert (answer.status_code, answer.text) == (200, "hello a")
        [home] = (platform.data / "environments").iterdir()
        python = (home / "bin" / "python").resolve()
        pids = [view["replicas"][0]["pid"] for view in (told[-1]["endpoint"],)]
        assert Path(f"/proc/{pids[0]}/exe").resolve() == python


def test_a_python_that_is_not_on_this_machine_is_refused_by_its_version(place: Place) -> None:
    with pytest.raises(InvalidService, match=r"is for Python 3\.99, which uv does not find"):
        asyncio.run(place.environments.python(place.listed(f"{PACKAGE}==1.0"), lambda line: None, "3.99.1"))
    assert place.made() == []


def test_a_patch_of_the_same_python_needs_no_other(place: Place) -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}.99"
    python = asyncio.run(place.environments.python(place.listed("numpy"), lambda line: None, own))
    assert python == Path(sys.executable)
