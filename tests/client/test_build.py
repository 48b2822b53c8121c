"""Building a bento: what is wrong is said with its place, what is built already is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from torpor.client.bento import Built, build
from torpor.errors import InvalidService, ModelNotFound, TorporError

SERVICE = (
    "import bentoml\n\n@bentoml.service\nclass {0}:\n    @bentoml.api\n    def one(self) -> int:\n        return 1\n"
)
MODELS = SERVICE.format("Two").replace(
    "    @bentoml.api",
    "    a = bentoml.models.BentoModel('one:latest')\n    b = bentoml.models.BentoModel('two:v1')\n    @bentoml.api",
)

# A folder's files, the error's class, what its message is (with {0} for the folder).
BROKEN: dict[str, tuple[Mapping[str, str], type[TorporError], str]] = {
    "empty": ({}, InvalidService, "{0} has neither bentofile.yaml nor service.py\nadd one of them"),
    "syntax": ({"service.py": "def ("}, InvalidService, "{0}/service.py, line 1: SyntaxError: invalid syntax\n"),
    "module": (
        {"service.py": "import bentoml\nimport nowhere\n"},
        InvalidService,
        "{0}/service.py, line 2: ModuleNotFoundError: No module named 'nowhere'\ninstall it",
    ),
    "raises": (
        {"service.py": "import bentoml\nfrom helper import x\n", "helper.py": "\nx = 1 / 0\n"},
        InvalidService,
        "{0}/helper.py, line 2: ZeroDivisionError: division by zero\nmend it",
    ),
    "none": ({"service.py": "import bentoml\n"}, InvalidService, "{0}/service.py has no class that is a @bentoml"),
    "several": (
        {"service.py": SERVICE.format("A") + SERVICE.format("B")},
        InvalidService,
        "{0}/service.py has several services: A, B\nadd a bentofile.yaml that names one",
    ),
    "keys": (
        {"service.py": SERVICE.format("A"), "bentofile.yaml": "service: service:A\npyhton: {}\ninclud: []\n"},
        InvalidService,
        "{0}/bentofile.yaml: extra fields found (",
    ),
    "yaml": ({"bentofile.yaml": "service: ["}, InvalidService, "{0}/bentofile.yaml: while parsing"),
    "class": (
        {"service.py": SERVICE.format("A"), "bentofile.yaml": "service: service:B\n"},
        InvalidService,
        "service:B in {0} is no @bentoml.service\nname the class",
    ),
    "models": (
        {"service.py": MODELS},
        ModelNotFound,
        "not in the model store (see `bentoml models list`): one:latest, two:v1\n"
        "export it first: torpor export SOURCE --name one",
    ),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("TORPOR_DATA", str(tmp_path / "data"))
    (tmp_path / "bentoml").mkdir()
    return tmp_path / "bentoml"


# What `torpor.client.build` answers to each source, a process each; bentoml is imported once for all of them.
ANSWERS = """
import json, os, sys
from torpor.client.build import main
for source in sys.argv[1:]:
    if os.fork() == 0:
        print(json.dumps(main(source)), flush=True)
        os._exit(0)
    os.wait()
"""


def answers(*sources: str) -> list[dict[str, str]]:
    done = subprocess.run([sys.executable, "-P", "-c", ANSWERS, *sources], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def written(folder: Path, files: Mapping[str, str]) -> str:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def test_a_folder_that_cannot_be_built_is_refused_by_its_fault_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    sources = [written(tmp_path / "broken" / name, files) for name, (files, _, _) in BROKEN.items()]
    for source, met, (_, kind, message) in zip(sources, answers(*sources), BROKEN.values(), strict=True):
        assert met["code"] == kind.code
        assert met["error"].startswith(message.format(source))
        assert len(met["error"].splitlines()) == 2
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_build_that_ends_without_a_word_is_refused_too(home: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "gone", {"service.py": "import os\nos._exit(9)\n"})
    with pytest.raises(InvalidService, match=rf"{source} cannot be built: it exited with 9\n"):
        build(source)


def test_what_is_built_already_is_found_and_a_change_is_built_anew(home: Path, tmp_path: Path) -> None:
    one, same, other = (written(tmp_path / name, {"service.py": SERVICE.format("Own")}) for name in ("a", "b", "c"))
    (tmp_path / "c" / "service.py").write_text(SERVICE.format("Own") + "# more\n")
    first, again, elsewhere, second, before = answers(one, one, same, other, one)
    assert first == again == elsewhere == before
    assert first["tag"] != second["tag"]
    assert build(first["tag"]) == Built(first["tag"], Path(first["folder"]))
    versions = {first["tag"].partition(":")[2], second["tag"].partition(":")[2]}
    assert {path.name for path in (home / "bentos" / "own").iterdir()} == versions | {"latest"}


def test_a_module_is_built_from_the_working_directory_without_what_is_hidden_or_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "own", {"service.py": SERVICE.format("Own")})
    written(tmp_path / ".cache", {"large": ""})
    written(tmp_path / "data", {"torpor.db": ""})
    monkeypatch.chdir(tmp_path)
    built = build("own.service:Own")
    files = {str(path.relative_to(built.folder / "src")) for path in (built.folder / "src").rglob("*.*")}
    assert files == {"own/service.py", "bentofile.yaml"}
    other, module, folder = answers("own.service:Other", "nowhere:Own", "nowhere")
    assert other["error"].startswith(f"own.service:Other in {tmp_path} is no @bentoml.service\n")
    assert "'nowhere:Own' is no folder, no bento's tag" in module["error"]
    assert folder["error"].endswith(f"looked for in {tmp_path}")


def test_a_pyproject_names_the_service_too(home: Path, tmp_path: Path) -> None:
    toml = '[tool.bentoml.build]\nservice = "other:Own"\n[tool.bentoml.build.python]\nlock_packages = false\n'
    source = written(tmp_path / "own", {"other.py": SERVICE.format("Own"), "pyproject.toml": toml})
    assert build(source).tag.startswith("own:")
