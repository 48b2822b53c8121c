"""A prisoner and its neighbour, each in a container, whose services do what they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.containers.cells import PATIENCE, Cells, cells

CANARY = "of-the-router-alone"  # in the environment of whoever started the platform
SECRET, FILE = "known-to-one-as-a-variable", "known-to-one-as-a-file"


@pytest.fixture(scope="package")
def jail(tmp_path_factory: pytest.TempPathFactory, engine: Path, host_image: str) -> Iterator[Cells]:
    """`prisoner` knows nothing, `neighbour` has secrets; both are awake."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SECRET_ACCESS_KEY", "BENTO_CLOUD_API_KEY", "SOMEBODYS_TOKEN"):
            patch.setenv(name, CANARY)
        with cells(tmp_path_factory.mktemp("jail"), engine, host_image) as made:
            env = [{"key": "PASSWORD", "value": SECRET}]
            file = [{"key": "cert", "value": FILE}]
            for name, content in (
                ("password", {"type": "env", "items": env}),
                ("cert", {"type": "file", "path": "/etc/tls", "items": file}),
            ):
                body = {"name": name, "content": content}
                httpx.post(f"{made.url}/api/v1/org_secrets", json=body, timeout=PATIENCE).raise_for_status()
            made.deploy("neighbour", "password", "cert", sleep="stop")
            made.deploy("prisoner", sleep="stop", memory_limit=1 << 30, pids_limit=64, drain_within=1, stop_within=1)
            made.inside("neighbour", "out = 1")
            made.inside("prisoner", "out = 1")
            yield made
