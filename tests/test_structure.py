"""The house of docs/design.md, read from the sources: who imports whom, and how long and how pure things are."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from torpor import errors
from torpor.errors import BY_CODE, TorporError

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]

# Which of the checkout's folders a folder may import, itself aside.
MAY_IMPORT = {
    "torpor": set(),
    "services": {"torpor"},
    "models": {"torpor"},
    "router": {"torpor", "models"},
    "examples": set(),
    "infra": {"torpor"},
    "bench": {"torpor", "router"},
    "tests": {"torpor", "services", "models", "router", "bench", "infra"},
}
PRODUCT = ("torpor", "services", "models", "router")

# The standard library's modules that the core may use: none that waits, reads a clock, writes, or talks to the system.
PURE = {
    "__future__", "collections", "dataclasses", "enum", "hashlib", "heapq", "math", "re", "signal", "typing", "urllib",
}  # fmt: skip
# Distributions that bring another name.
IMPORTED_AS = {"opentelemetry_exporter_otlp_proto_http": "opentelemetry", "nvidia_ml_py": "pynvml"}
RINGS = {
    "core": {"core"},
    "proxy": {"proxy"},
    "depot": {"card", "core", "depot", "disk"},
    "shell": {"core", "depot", "proxy", "shell"},
    "store": {"core", "disk", "store"},
    "launch": {"card", "core", "disk", "shell", "launch"},
}

LINES_MAX = 400  # of a file
FUNCTION_MAX = 50  # lines of a function: one screen
PARAMETERS_MAX = 7


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    wrong = {
        f"{place(path)}: {name}"
        for path in sources(folder)
        for name in imports(parsed(path))
        if name.partition(".")[0] in MAY_IMPORT and name.partition(".")[0] not in allowed
    }
    assert wrong == set()


def test_the_core_is_pure() -> None:
    for path in sources("router/core"):
        tree = parsed(path)
        names = {name for name in imports(tree) if not name.startswith(("router.core", "torpor.errors", "torpor.wire"))}
        assert {name.partition(".")[0] for name in names} <= PURE, place(path)
        waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
        assert not any(isinstance(node, waiting) for node in ast.walk(tree)), place(path)


@pytest.mark.parametrize("ring", RINGS)
def test_the_rings_point_inward(ring: str) -> None:
    for path in sources(f"router/{ring}"):
        inner = {name.split(".")[1] for name in imports(parsed(path)) if name.startswith("router.")}
        assert inner <= RINGS[ring], place(path)


def owned() -> dict[str, tuple[str, ...]]:
    """What pyproject.toml's comments promise: a distribution, and the only places that import it."""
    promise = re.compile(r'^\s*"([\w.-]+).*#.*\bonly (\S+(?:(?:, | and )\S+)*) imports? it$', re.MULTILINE)
    found = {n.replace("-", "_"): tuple(re.split(r", | and ", places)) for n, places in promise.findall(PYPROJECT)}
    return {IMPORTED_AS.get(name, name): places for name, places in found.items()}


def test_a_library_is_imported_only_by_its_owner() -> None:
    owners = owned()
    assert {"httpx", "click", "rich", "sqlalchemy", "alembic", "starlette", "torch"} <= owners.keys()
    met: set[str] = set()
    for path in sources(*PRODUCT):
        for name in {name.partition(".")[0] for name in imports(parsed(path))} & owners.keys():
            met.add(name)
            assert place(path).startswith(owners[name]), f"{place(path)} imports {name}"
    assert met == owners.keys(), "an owner that imports nothing of it"


def test_what_is_imported_is_declared_or_brought_by_what_is() -> None:
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["platform"]]
    for extra in ("export", "s3", "otel"):
        declared += PROJECT["optional-dependencies"][extra]
    names = {canonicalize_name(Requirement(line).name) for line in declared}
    brought = {canonicalize_name(Requirement(line).name) for name in names for line in requirements(name)}
    distributions = importlib.metadata.packages_distributions()
    for path in sources(*PRODUCT):
        for name in {name.partition(".")[0] for name in imports(parsed(path))}:
            if name in sys.stdlib_module_names or name in MAY_IMPORT:
                continue
            found = {canonicalize_name(each) for each in distributions[name]}
            assert found & (names | brought), f"{place(path)} imports {name}, which pyproject.toml does not bring"


def requirements(distribution: str) -> list[str]:
    return [line for line in importlib.metadata.requires(distribution) or () if "extra ==" not in line]


def test_the_client_and_the_command_line_need_the_base_install_only() -> None:
    base = {Requirement(line).name for line in PROJECT["dependencies"]}
    others = {"torpor/client/build.py", "torpor/tokenizer.py"}  # a process beside bentoml, and the services' own
    for path in [*sources("torpor/client", "torpor/cli"), *(ROOT / "torpor").glob("*.py")]:
        if place(path) in others:
            continue
        at_the_top = {name.partition(".")[0] for node in parsed(path).body for name in imports_of(node)}
        assert at_the_top <= base | {"torpor"} | set(sys.stdlib_module_names), place(path)


def imports_of(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from imports(node)


def test_a_file_says_what_it_owns_and_is_not_long() -> None:
    wrong = []
    for path in sources(*MAY_IMPORT):
        text = path.read_text()
        if text.strip() and not place(path).startswith("examples/") and not ast.get_docstring(parsed(path)):
            wrong.append(f"{place(path)} has no docstring")
        if (lines := len(text.splitlines())) >= LINES_MAX:
            wrong.append(f"{place(path)} has {lines} lines")
        if re.search(r"\b(TODO|FIXME)\b", text) and path != Path(__file__):
            wrong.append(f"{place(path)} leaves something to do")
    assert wrong == []


def test_a_function_fits_on_a_screen() -> None:
    wrong = []
    for path in sources(*MAY_IMPORT):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Global):
                wrong.append(f"{place(path)}, line {node.lineno}: global")
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                parameters = [each for each in node.args.args + node.args.kwonlyargs if each.arg not in ("self", "cls")]
                stores = node.name == "__init__"  # the parts of what is built in one place
                if lines > FUNCTION_MAX or (len(parameters) > PARAMETERS_MAX and not stores):
                    wrong.append(f"{place(path)}: {node.name} has {lines} lines and {len(parameters)} parameters")
    assert wrong == []


def tree(cls: type[TorporError] = TorporError) -> Iterator[type[TorporError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from tree(sub)


def test_every_error_is_drawn_in_the_tree_with_its_status_and_code() -> None:
    drawn: dict[str, str] = {}
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([\s│├└─]*)([A-Z]\w+)  +(.*)$|^(\s+)(TorporError)()$", line)
        if found is None:
            continue
        indent, name, text = (group or "" for group in (found[1] or found[4], found[2] or found[5], found[3]))
        while above and above[-1][0] >= len(indent):
            above.pop()
        drawn[name], parents[name] = text, above[-1][1] if above else ""
        above.append((len(indent), name))
    for cls in tree():
        assert cls.__name__ in drawn, f"{cls.__name__} is not drawn"
        if cls is not TorporError:
            assert parents[cls.__name__] == cls.__bases__[0].__name__
    assert drawn.keys() == {cls.__name__ for cls in tree()}
    for code, leaf in BY_CODE.items():
        status = {"call_failed": "status as answered", "platform_unreachable": "no status"}.get(code, str(leaf.status))
        assert drawn[leaf.__name__].endswith(code)
        assert status in drawn[leaf.__name__]


def test_an_errors_code_is_its_own() -> None:
    leaves = [cls for cls in tree() if not cls.__subclasses__()]
    assert len({leaf.code for leaf in leaves}) == len(leaves) == len(BY_CODE)
