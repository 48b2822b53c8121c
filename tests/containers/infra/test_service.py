"""infra/torpor.service, run by a real systemd: the first process of a container of its own.

What the unit closes is closed by systemd there too. Control groups of services are not (a container's are read-only).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from tests.containers.conftest import cannot
from tests.containers.engine import remove_labelled
from tests.containers.infra.box import LABEL, Box, Tool, eventually
from tests.system.running import EXAMPLES

URL = "http://127.0.0.1:7300"
# The image's torpor is where the unit has it; its user and its folder are systemd's to make.
MACHINE = """\
FROM {image}
USER root
RUN apt-get update -q && apt-get install -q -y --no-install-recommends systemd systemd-sysv procps \
 && rm -rf /var/lib/apt/lists/*
COPY torpor.service /etc/systemd/system/
RUN systemctl enable torpor
HEALTHCHECK NONE
ENTRYPOINT ["/sbin/init"]
CMD []
"""


@pytest.fixture(scope="module")
def machine(
    tool: Tool, image: str, tree: Path, engine: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """A machine with the unit enabled."""
    if not tool.podman:
        cannot(RuntimeError("only Podman sets a container up for systemd"))
    context, run = tmp_path_factory.mktemp("machine"), token_hex(4)
    shutil.copy(tree / "infra" / "torpor.service", context)
    (context / "Containerfile").write_text(MACHINE.format(image=image))
    name, label = f"torpor-test-{run}", f"{LABEL}={run}"
    try:
        how = ("--format", "docker", "--network", "host", "--label", label)
        tool.told("build", *how, "-t", f"localhost/{name}", str(context))
        given = ("--privileged", "--systemd=always", "--network", "none", "--label", label)
        tool.told("run", "-d", "--name", name, *given, f"localhost/{name}")
        yield Box(tool, name, (f"TORPOR_URL={URL}", "BENTOML_HOME=/root/bentoml", "HOME=/root"))
    finally:
        remove_labelled(engine, label)


@pytest.fixture(scope="module")
def served(machine: Box, tool: Tool) -> Box:
    """With the endpoint `hello`."""
    assert eventually(lambda: machine.run("torpor", "ls").returncode == 0), journal(machine)
    tool.told("cp", str(EXAMPLES / "hello_json"), f"{machine.name}:/opt/hello")
    machine.told("mkdir", "-p", "/root/bentoml")
    machine.told("torpor", "deploy", "/opt/hello", "--name", "hello")
    return machine


def journal(box: Box) -> str:
    return box.run("journalctl", "--no-pager", "-u", "torpor").stdout


def shown(box: Box, name: str) -> str:
    """A property of the service, as systemd has it."""
    return box.told("systemctl", "show", "torpor", "--property", name, "--value").strip()


def test_systemd_finds_no_fault_in_the_unit(tree: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        cannot(RuntimeError("systemd is not installed"))
    text = (tree / "infra" / "torpor.service").read_text()
    assert "ExecStart=/opt/torpor/bin/torpor up\n" in text
    unit = tmp_path / "torpor.service"
    unit.write_text(text.replace("/opt/torpor/bin/torpor", str(Path(sys.executable).with_name("torpor"))))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_replicas_are_forked_sleep_and_wake_in_the_closed_room(served: Box) -> None:
    served.greet("Ada")
    served.told("torpor", "sleep", "hello")
    assert served.greet("Bob") == "Hello, Bob!"
    status = served.told("cat", f"/proc/{shown(served, 'MainPID')}/status")
    fields = {line.partition(":")[0]: line.partition(":")[2].strip() for line in status.splitlines()}
    assert (fields["CapBnd"].strip("0"), fields["NoNewPrivs"], fields["Seccomp"]) == ("", "1", "2")
    assert served.told("stat", "-c", "%U %a", "/var/lib/torpor").split() == ["torpor", "700"]
    root = f"/proc/{shown(served, 'MainPID')}/root"
    mounts = served.told("cat", f"/proc/{shown(served, 'MainPID')}/mounts").splitlines()
    [options] = [line.split()[3] for line in mounts if line.split()[1] == "/"][-1:]
    assert "ro" in options.split(","), root


def test_a_router_that_was_killed_is_started_again_and_its_endpoints_with_it(served: Box) -> None:
    killed = shown(served, "MainPID")
    served.told("systemctl", "kill", "--kill-who=main", "--signal=KILL", "torpor")
    assert eventually(lambda: shown(served, "NRestarts") == "1" and served.run("torpor", "ls").returncode == 0)
    assert shown(served, "MainPID") not in (killed, "0")
    assert served.greet("Eve") == "Hello, Eve!"


def test_a_reload_without_a_certificate_changes_nothing(served: Box) -> None:
    before = shown(served, "MainPID")
    served.told("systemctl", "reload", "torpor")
    assert served.greet("Ada") == "Hello, Ada!"
    assert shown(served, "MainPID") == before


def test_a_stop_is_an_orderly_one(served: Box) -> None:
    served.greet("Ada")
    served.told("systemctl", "stop", "torpor")
    assert (shown(served, "Result"), shown(served, "ExecMainStatus"), shown(served, "ActiveState")) == (
        "success",
        "0",
        "inactive",
    )
    assert "torpor.host" not in served.told("ps", "ax")
