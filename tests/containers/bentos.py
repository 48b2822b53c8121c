"""Bentos as folders, for tests of images: a card and the files that a build reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from router.shell.request import Needs
from tests.containers.engine import BASE

ENTRYPOINT = "#!/bin/sh\nexec true\n"  # of what bentoml starts; torpor names its own


def bento(
    folder: Path,
    name: str = "it",
    *,
    files: dict[str, str] | None = None,
    envs: tuple[dict[str, str], ...] = (),
    requirements: str = "bentoml\n",
    **image: Any,
) -> Needs:
    """`image`: what its card says of its image, in place of what it says by default."""
    told = {
        "base_image": BASE,
        "python_version": "3.11",
        "commands": [],
        "python_requirements": requirements,
        "post_commands": [],
        "build_include": [],
        **image,
    }
    card = {
        "service": "service:It",
        "name": name,
        "version": "1",
        "bentoml_version": "1.4.39",
        "creation_time": "2026-01-01T00:00:00+00:00",
        "labels": {},
        "models": [],
        "entry_service": "It",
        "services": [],
        "envs": list(envs),
        "schema": {},
        "args": {},
        "spec": 2,
        "image": told,
    }
    home = folder / name
    content = {
        "bento.yaml": yaml.safe_dump(card),
        "env/docker/entrypoint.sh": ENTRYPOINT,
        "env/docker/Dockerfile": f"FROM nothing-of-{name}\n",
        "env/python/requirements.txt": requirements,
        "src/service.py": f"# of {name}\n",
        "models/big/1/model.onnx": f"weights of {name}",
        **(files or {}),
    }
    for path, text in content.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    return Needs(folder=home / "src", bento=home, target="service:It")
