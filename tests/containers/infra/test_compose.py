"""infra/compose.yaml: torpor in a container, its replicas in containers beside it, on the real engine.

MinIO, of the profile `store`, is not run here: its part is read only. On Podman, compose is podman-compose.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
import yaml

from tests.containers.engine import asked, remove_labelled
from tests.containers.infra.box import WITHIN, Box, Tool, eventually
from tests.system.running import EXAMPLES, free_port

SERVICE = "torpor"


@dataclass(frozen=True)
class Composed:
    """The file of a tree, as a project of its own. `data`: the folder that both sides share."""

    command: tuple[str, ...]
    project: str
    file: Path
    env: dict[str, str]
    data: Path
    port: int

    def told(self, *arguments: str) -> str:
        line = [*self.command, "-p", self.project, "-f", str(self.file), *arguments]
        done = subprocess.run(line, env=self.env, capture_output=True, text=True, timeout=WITHIN)
        assert done.returncode == 0, f"{' '.join(line)}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def composed(tool: Tool, tree: Path, engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Composed:
    data, port = tmp_path_factory.mktemp("data"), free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TORPOR_", "AWS_"))}
    env |= {"TORPOR_DATA": str(data), "ENGINE_SOCKET": str(engine), "LISTEN": f"127.0.0.1:{port}"}
    env |= {} if tool.podman else {"DOCKER_HOST": f"unix://{engine}"}
    front = (sys.executable, "-m", "podman_compose") if tool.podman else ("docker", "compose")
    return Composed(front, f"torpor-test-{token_hex(4)}", tree / "infra" / "compose.yaml", env, data, port)


def read(composed: Composed, *flags: str) -> dict[str, Any]:
    """The file as compose itself understands it."""
    return dict(yaml.safe_load(composed.told(*flags, "config")))


def sources(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted, by where."""
    pairs = [
        each.split(":") if isinstance(each, str) else (each["source"], each["target"]) for each in service["volumes"]
    ]
    return {pair[1]: pair[0] for pair in pairs}


def test_the_data_folder_has_the_same_path_on_both_sides_and_the_build_is_of_this_tree(composed: Composed) -> None:
    service = read(composed)["services"][SERVICE]
    assert sources(service)[str(composed.data)] == str(composed.data)
    assert service["environment"]["TORPOR_DATA"] == str(composed.data)
    assert service["environment"]["BENTOML_HOME"].startswith(str(composed.data))
    assert Path(service["build"]["context"]).resolve() == composed.file.parent.parent.resolve()


def test_the_store_is_there_with_its_profile_only(composed: Composed) -> None:
    assert set(read(composed)["services"]) == {SERVICE}
    store = read(composed, "--profile", "store")["services"]["store"]
    assert store["image"].startswith("docker.io/minio/minio:RELEASE.")
    assert sources(store) == {"/data": "store"}


@pytest.fixture(scope="module")
def up(composed: Composed, tool: Tool, image: str, engine: Path) -> Iterator[Box]:
    """The three lines of the file's head, with the image of these tests."""
    composed.env["TORPOR_IMAGE"] = image
    token = composed.told("run", "--rm", "-T", SERVICE, "tokens", "create", "admin", "--scope", "admin").split()[-1]
    try:
        composed.told("up", "-d", "--no-build")
        project = f"label=com.docker.compose.project={composed.project}"
        [name] = tool.told("ps", "--filter", project, "--format", "{{.Names}}").split()
        yield Box(tool, name, (f"TORPOR_TOKEN={token}",))
        tool.run("rm", "-f", "-v", name)  # with the image's own volume, which is not used: the data is elsewhere
    finally:
        composed.told("down", "-v")
        if (platform := composed.data / "platform").exists():
            remove_labelled(engine, f"torpor.platform={platform.read_text().strip()}")


def replicas(composed: Composed, engine: Path) -> list[str]:
    """Ids of the containers that the router in the container has made."""
    filters = json.dumps({"label": [f"torpor.platform={(composed.data / 'platform').read_text().strip()}"]})
    told = asked(engine, "GET", "/containers/json", params={"all": "true", "filters": filters}).json()
    return [each["Id"] for each in told]


def test_a_replica_is_a_container_beside_torpors_and_goes_with_it(
    up: Box, composed: Composed, tool: Tool, engine: Path, image: str
) -> None:
    url = f"http://127.0.0.1:{composed.port}"
    assert eventually(lambda: answers(url)), up.logs()
    found = {check["name"]: check for check in json.loads(up.told("torpor", "doctor", "--json"))}
    assert found["containers"]["state"] == "ok"
    tool.told("cp", str(EXAMPLES / "hello_json"), f"{up.name}:/tmp/hello")
    # torpor's own image has all that this bento asks for: none has to be built.
    up.told("torpor", "deploy", "/tmp/hello", "--name", "hello", "--set", f"image={image}", "--set", "sleep=stop")
    assert replicas(composed, engine) != []
    up.told("torpor", "sleep", "hello")
    headers = {"Authorization": "Bearer " + up.env[0].partition("=")[2]}
    person = {"person": {"name": "Ada"}}
    answer = httpx.post(f"{url}/endpoints/hello/greet", json=person, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["text"]) == (200, "Hello, Ada!")
    assert answer.headers["X-Torpor-Cold-Start"] == "true"
    assert httpx.post(f"{url}/endpoints/hello/greet", json=person, timeout=60).status_code == 401
    composed.told("stop")
    assert replicas(composed, engine) == []


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False
