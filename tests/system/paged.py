"""A service whose page is looked at, and what is read of such a page."""

from __future__ import annotations

import html
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.system.running import Running
from tests.system.test_control_plane import PATIENCE, until

API = "/api/v2/deployments"
MARK = "<script>alert(1)</script>"
SAID = "&lt;script&gt;alert(1)&lt;/script&gt;"

# It takes arguments in every way that an example has to write, and says what is no text of ours.
SERVICE = """
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType, Shape
from PIL.Image import Image
from pydantic import BaseModel

class Item(BaseModel):
    what: str = "it's $HOME"
    count: int

@bentoml.service
class Speaker:
    def __init__(self) -> None:
        print("<script>alert(1)</script> \\x1b[31mred\\x1b[0m \\u202eback", flush=True)

    @bentoml.api
    def add(self, numbers: list[float], scale: float = 2.0) -> float:
        return sum(numbers) * scale

    @bentoml.api
    def item(self, item: Item) -> str:
        return f"{item.count} {item.what}"

    @bentoml.api
    def root(self, item: Item, /) -> str:
        return f"{item.count} {item.what}"

    @bentoml.api
    def text(self, text: str, /) -> str:
        return text

    @bentoml.api
    def matrix(self, rows: Annotated[np.ndarray, Shape((2, 3)), DType("float32")]) -> np.ndarray:
        return rows + 1

    @bentoml.api
    def picture(self, picture: Image) -> str:
        return f"{picture.width}"

    @bentoml.api
    def whole(self, picture: Image, /) -> str:
        return f"{picture.width}"

    @bentoml.api
    def file(self, label: str, file: Path) -> Path:
        return file

    @bentoml.api
    def nothing(self) -> str:
        return "done"

    @bentoml.task
    def later(self, count: int) -> int:
        return count
"""
BROKEN = """
import bentoml

@bentoml.service
class Broken:
    def __init__(self) -> None:
        raise RuntimeError("<script>alert(1)</script>")
"""


def deploy(platform: Running, name: str, bento: str, **more: object) -> None:
    body = {"name": name, "bento": bento, "services": {}, **more}
    made = httpx.post(f"{platform.url}{API}", json=body, timeout=PATIENCE)
    assert made.status_code == 200, made.text


def shown(platform: Running, path: str) -> httpx.Response:
    return httpx.get(platform.url + path, timeout=PATIENCE)


def words(page: httpx.Response | str) -> str:
    """A page's text, as it is read."""
    text = page if isinstance(page, str) else page.text
    text = re.sub(r"<(style|script|title)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def commands(page: httpx.Response) -> dict[str, str]:
    """The commands to be copied, by the methods that they call."""
    found = re.findall(r'<pre id="call[^>]*aria-label="Command that calls ([^"]*)">(.*?)</pre>', page.text, re.DOTALL)
    return {html.unescape(method): html.unescape(command) for method, command in found}


def ran(command: str, folder: Path, **env: str) -> str:
    """What a copied command prints; an answer that is an error fails it."""
    failing = command.replace("curl -s ", "curl -s --fail-with-body ", 1)
    done = subprocess.run(
        ["bash", "-c", failing], cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def under_way(platform: Running, name: str) -> Iterator[None]:
    """A first deploy that is never ready; it is deleted at the end."""

    def sent() -> None:
        with suppress(httpx.TransportError):
            deploy(platform, name, "slow:1")

    url = f"{platform.url}{API}/{name}"
    asking = threading.Thread(target=sent, daemon=True)
    asking.start()
    until(lambda: httpx.get(url).status_code == 200)
    try:
        yield
    finally:
        httpx.delete(url, timeout=PATIENCE).raise_for_status()
        asking.join(PATIENCE)
