"""The same services twice: by stock `bentoml serve`, and as endpoints of one torpor platform."""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from torpor import Client
from torpor.cli.platform import down, up_detached

HERE = Path(__file__).parent
SERVICES = ("wide", "files", "mounted", "hurried", "narrow")
START_WITHIN = 90.0  # seconds for all stock servers together, on two busy cores

# Headers that differ by nature, each with its reason. All others must be alike.
BY_NATURE = {
    "date",  # a time
    "x-request-id",  # torpor's own, made for each call
    "x-torpor-cold-start",  # torpor's own
    "server-timing",  # torpor's own
    "x-bentoml-request-id",  # random
    "transfer-encoding",  # framing: a proxy may choose it
    "connection",  # of the hop
    "keep-alive",  # of the hop
    "last-modified",  # of files that the services write anew
    "etag",  # the same
}


@dataclass(frozen=True)
class Answer:
    """What a client can tell apart."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def lines(self) -> list[str]:
        return [str(self.status), *(f"{name}: {value}" for name, value in self.headers), repr(self.body)]


def answer_of(response: httpx.Response) -> Answer:
    headers = sorted((name.lower(), value) for name, value in response.headers.multi_items())
    kept = tuple((name, value) for name, value in headers if name not in BY_NATURE)
    return Answer(response.status_code, kept, response.content)


class Pair:
    """Every request goes to both; `both` is the answer that they agree on."""

    def __init__(self, stock: dict[str, str], torpor: dict[str, str], witness: dict[str, Path]) -> None:
        self.stock = stock
        self.torpor = torpor
        self.witness = witness
        self.http = httpx.Client(timeout=30)

    def each(self, service: str, method: str, path: str, **options: Any) -> tuple[httpx.Response, httpx.Response]:
        stock, torpor = (self.http.request(method, url[service] + path, **options) for url in (self.stock, self.torpor))
        self.http.cookies.clear()
        return stock, torpor

    def both(self, service: str, method: str, path: str, **options: Any) -> Answer:
        stock, torpor = map(answer_of, self.each(service, method, path, **options))
        check_alike(stock, torpor)
        return stock


def check_alike(stock: Answer, torpor: Answer) -> None:
    difference = "\n".join(difflib.unified_diff(stock.lines(), torpor.lines(), "bentoml serve", "torpor", n=0))
    assert not difference, "\n" + difference


def start(folder: Path, stack: ExitStack) -> Pair:
    """Both sides of every service; `stack` ends them."""
    sources = {name: _source(folder / name, name) for name in SERVICES}
    stock = {name: _serve(folder, sources[name], stack) for name in SERVICES}
    data = folder / "data"
    os.environ["BENTOML_HOME"] = str(folder / "bentoml")
    (folder / "bentoml").mkdir()
    found = up_detached(["--data", str(data), "--port", "0"], data)
    stack.callback(down, data)
    with Client(found["url"], answer_within=120) as client, ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda name: client.deploy(sources[name], name, env={"WITNESS": str(folder / f"torpor-{name}")}),
                SERVICES,
            )
        )
    torpor = {name: f"{found['url']}/endpoints/{name}" for name in SERVICES}
    _await(stock)
    witness = {side: folder / f"{side}-hurried" for side in ("stock", "torpor")}
    return Pair(stock, torpor, witness)


def _source(folder: Path, name: str) -> Path:
    folder.mkdir()
    shutil.copy(HERE / f"{name}.py", folder / "service.py")
    (folder / "bentofile.yaml").write_text(f"service: service:{name.capitalize()}\ninclude: [service.py]\n")
    return folder


def _serve(folder: Path, source: Path, stack: ExitStack) -> str:
    """Stock `bentoml serve`; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **os.environ,
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(source / ".bentoml"),
        "BENTOML_RESULT_STORE": str(source / ".tasks.db"),
        "WITNESS": str(folder / f"stock-{source.name}"),
    }
    (source / ".bentoml").mkdir()
    log = stack.enter_context((folder / f"stock-{source.name}.log").open("wb"))
    command = [sys.executable, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=source, env=env, stdout=log, stderr=log, start_new_session=True)
    stack.callback(_end, process)
    return f"http://127.0.0.1:{port}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(urls: dict[str, str]) -> None:
    give_up = time.monotonic() + START_WITHIN
    for name, url in urls.items():
        while True:
            try:
                if httpx.get(url + ("/v9" if name == "hurried" else "") + "/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < give_up, f"bentoml serve of {name} does not answer"
            time.sleep(0.1)
