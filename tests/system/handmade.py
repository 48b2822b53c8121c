"""Bentos made by hand: a service's text as the tar that the control plane takes, without a build."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import httpx
import yaml

WITHIN = 120.0  # seconds of one request of the control plane


def bento(name: str, service: str, target: str = "service:Hello", requirements: str = "", **files: bytes) -> bytes:
    """A bento's tar. `service`: the text of its one module."""
    inner = target.partition(":")[2]
    manifest = {
        "service": target,
        "name": name,
        "version": "1",
        "bentoml_version": "1.4.39",
        "creation_time": "2026-01-01T00:00:00+00:00",
        "labels": {},
        "models": [],
        "entry_service": inner,
        "services": [{"name": inner, "service": "", "models": [], "dependencies": [], "config": {}}],
        "envs": [],
        "schema": {},
        "args": {},
        "spec": 2,
        "image": {"base_image": "python:3.11-slim", "python_version": "3.11"},
    }
    content = {"bento.yaml": yaml.safe_dump(manifest).encode(), "src/service.py": service.encode(), **files}
    if requirements:
        content["env/python/requirements.txt"] = requirements.encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in content.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def upload(url: str, name: str, tar: bytes) -> None:
    done = httpx.put(f"{url}/torpor/v1/bentos/{name}/1", content=tar, timeout=WITHIN)
    assert (done.status_code, done.json()) == (200, {"bento": f"{name}:1"}), done.text


def events(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a deploy tells, line by line as it comes; an answer that is no stream of events is one event."""
    with httpx.stream("POST", f"{url}/torpor/v1/endpoints", json=body, timeout=WITHIN) as answer:
        if answer.headers["content-type"] != "application/x-ndjson":
            answer.read()
            yield {"event": "refused", "status": answer.status_code, **answer.json()}
        else:
            yield from (json.loads(line) for line in answer.iter_lines())


def deployed(url: str, endpoint: str, tag: str, **settings: Any) -> dict[str, Any]:
    """The endpoint's view, once it is live."""
    told = list(events(url, {"name": endpoint, "bento": tag, "settings": settings}))
    assert told[-1]["event"] == "deployed", told
    return dict(told[-1]["endpoint"])
