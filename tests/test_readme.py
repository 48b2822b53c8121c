"""Every code block of the README is run, and its output compared with what stands there: figures and ids by shape."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.models.minilm import HOME
from tests.system.running import WITHIN, clean_environment, free_port
from torpor.cli.platform import answers, down, read_address

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEFAULT = "127.0.0.1:7300"
FIRST = "127.0.0.1:7400"  # the first port of deployments

# What differs from run to run, in this order: versions of bentos and models, replicas' ids, tokens and their ids, the
# data folder, figures, widths of columns.
VARIES = (
    (r":[a-z2-7]{16}\b", ":ID"),
    (r"torpor-bento:[0-9a-f]{32}", "torpor-bento:ID"),
    (r"-[0-9a-f]{8}\b", "-ID"),
    (r"\btp_[\w-]{43}", "TOKEN"),
    (r"(?<![\w.-])[0-9a-f]{8}(?![\w.-])", "ID"),
    (r"/\S+/tls/", "/DATA/tls/"),
    (r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", "0"),
    (r"\s+", " "),
)


@dataclass(frozen=True)
class Command:
    """One command of a console block, and its output as the README has it; `...` stands for any lines."""

    line: str
    output: tuple[str, ...]

    @property
    def interrupted(self) -> bool:
        return "^C" in self.output


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return str(found)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[Command]:
    found = []
    for block in blocks("console", text):
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *output = each.splitlines()
            found.append(Command(line, tuple(output)))
    return found


def shape(line: str) -> str:
    for pattern, stands_for in VARIES:
        line = re.sub(pattern, stands_for, line)
    return line.strip()


def agree(command: Command, printed: str) -> None:
    """Raises where what was printed is not what the README shows."""
    shown = [each for each in command.output if each != "^C"]
    pattern = "".join(r"(?:.*\n)*?" if each == "..." else re.escape(shape(each)) + "\n" for each in shown)
    got = "".join(shape(line) + "\n" for line in printed.splitlines())
    assert re.fullmatch(pattern, got), f"$ {command.line}\n{printed}\nis not, in shape,\n" + "\n".join(shown)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of the README's commands: a platform of their own on a free port, the model of the demo."""
    folder = tmp_path_factory.mktemp("readme")
    env = clean_environment(folder) | {"TORPOR_PORT": str(free_port()), "TORPOR_PORTS_FROM": str(free_port())}
    yield env
    if (left := read_address(folder / "data")) is not None and answers(left):
        down(folder / "data")


def run(command: Command, before: list[str], env: dict[str, str], within: float = WITHIN) -> str:
    """What one command prints, on both outputs, as bash runs it after the lines that set its environment."""
    line = command.line.replace(DEFAULT, f"127.0.0.1:{env['TORPOR_PORT']}")
    line = line.replace(FIRST, f"127.0.0.1:{env['TORPOR_PORTS_FROM']}")
    script = "\n".join((*before, line))
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C goes to all of them
    )
    assert process.stdout is not None
    printed = ""
    if command.interrupted:
        printed = "".join(process.stdout.readline() for _ in command.output[:-1])
        os.killpg(process.pid, signal.SIGINT)
    printed += process.communicate(timeout=within)[0]
    assert process.returncode == (130 if command.interrupted else 0), f"$ {line}\n{printed}"
    return printed


def test_every_block_is_of_a_language_that_is_run() -> None:
    fences = re.findall(r"^```(.*)$", README, re.MULTILINE)
    assert set(fences[::2]) == {"console", "pycon", "python"}
    assert set(fences[1::2]) == {""}
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), f"the README links to {link}, which is not there"


def test_the_demo_prints_what_the_readme_shows() -> None:
    (demo, test) = commands(README)[:2]
    assert (demo.line, test.line) == ("make demo", "make test")
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    agree(demo, done.stdout)
    subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, env=env, check=True, capture_output=True)


def test_the_shell_and_python_sessions_do_what_the_readme_shows(
    shell: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[str] = []
    for command in commands(README.replace(section("Containers"), ""))[2:]:  # those are in tests/containers
        word = shlex.split(command.line)[0]
        if word in ("source", "export"):
            before.append(command.line)
        elif word in ("torpor", "bentoml") or shutil.which(word):  # a bare machine has no curl
            if command.line.startswith("torpor rm"):
                python_session(shell, monkeypatch)
            agree(command, run(command, before, shell))
    assert before[1].partition("#")[0].strip() == "export BENTOML_HOME=$PWD/.cache/bentoml"
    assert HOME == ROOT / ".cache" / "bentoml"


def python_session(shell: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORPOR_URL", raising=False)
    monkeypatch.setenv("TORPOR_DATA", shell["TORPOR_DATA"])
    (session,) = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    told: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=told.append).failed == 0, "".join(told)


def test_the_python_example_runs() -> None:
    (program,) = blocks("python")
    exec(compile(program, "README.md", "exec"), {})
