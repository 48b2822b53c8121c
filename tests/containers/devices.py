"""Devices that an engine finds by CDI's names, as cards would be: /dev/zero and the like."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.launch.container import devices
from tests.containers.engine import NoEngine, asked

FOLDER = Path("/var/run/cdi")
CARDS = {"GPU-a": "/dev/zero", "GPU-b": "/dev/full"}


@contextmanager
def specified(engine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device of each card's name, in a class of this process: a machine may have real ones. Raises NoEngine."""
    version, info = (asked(engine, "GET", path) for path in ("/version", "/info"))
    if "podman" not in version.text.lower() and not info.json().get("CDISpecDirs"):
        raise NoEngine("the engine has no devices by CDI's names")
    kind = f"torpor.test/gpu-{os.getpid()}"
    made = [
        {"name": name, "containerEdits": {"deviceNodes": [{"path": f"/dev/{name}", "hostPath": path}]}}
        for name, path in CARDS.items()
    ]
    place = FOLDER / f"torpor-tests-{os.getpid()}.json"
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": kind, "devices": made}))
    except OSError as error:
        raise NoEngine(f"no devices can be specified: {error}") from error
    monkeypatch.setattr(devices, "KIND", kind)
    try:
        yield
    finally:
        place.unlink()
