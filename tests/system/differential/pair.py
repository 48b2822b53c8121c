"""The same services twice: by stock `bentoml serve`, and as endpoints of one torpor platform."""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.running import free_port
from torpor import Client
from torpor.cli.platform import down, up_detached

HERE = Path(__file__).parent
SERVICES = ("wide", "files", "mounted", "hurried", "narrow")
PREFIX = {"hurried": "/v9"}
BENTOFILE = "service: service:{name}\ninclude: [service.py]\npython: {{lock_packages: false}}\n"
ARGUMENTS = {"narrow": "args: {word: given}\n"}  # a bento with arguments is loaded in another way
START_WITHIN = 90.0  # seconds for all stock servers together, on two busy cores

# Headers that belong to one side or to one hop.
OF_A_SIDE = {
    "x-request-id",  # torpor's own, made for each call
    "x-torpor-cold-start",  # torpor's own
    "server-timing",  # torpor's own
    "transfer-encoding",  # framing: a proxy may choose it
    "connection",  # of the hop
    "keep-alive",  # of the hop
}
# Headers that both sides have, with a value that differs each time.
OF_A_MOMENT = {
    "date",  # a time
    "x-bentoml-request-id",  # random
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

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def answer_of(response: httpx.Response) -> Answer:
    base = f"{response.url.scheme}://{response.url.netloc.decode()}"
    headers = sorted((name.lower(), value) for name, value in response.headers.multi_items())
    kept = tuple((name, _plain(name, value, base)) for name, value in headers if name not in OF_A_SIDE)
    return Answer(response.status_code, kept, response.content)


def _plain(name: str, value: str, base: str) -> str:
    if name in OF_A_MOMENT:
        return "..."
    if name == "allow":  # Starlette prints a set
        return ", ".join(sorted(value.split(", ")))
    return value.replace(base, "")


class Pair:
    """Every request goes to both sides at once; `both` is the answer that they agree on.

    `stock` and `torpor` are base addresses by service.
    """

    def __init__(self, stock: dict[str, str], torpor: dict[str, str], folder: Path, platform: str) -> None:
        self.sides = {"stock": stock, "torpor": torpor}
        self.folder = folder
        self.client = Client(platform, answer_within=120)
        # No connection is kept: stock closes an idle one after five seconds, at which a request may be on its way.
        self.http = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
        self._pool = ThreadPoolExecutor(2)

    def close(self) -> None:
        self._pool.shutdown()
        self.http.close()
        self.client.close()

    def deploy(self, source: Path, name: str, **settings: Any) -> None:
        self.client.deploy(source, name, env={"WITNESS": str(self.witness("torpor", name))}, settings=settings)

    def witness(self, side: str, service: str) -> Path:
        """The file that the service writes its hooks into."""
        return self.folder / f"{side}-{service}.witness"

    def on_both(self, act: Callable[[str], Any]) -> list[Any]:
        """What `act("stock")` and `act("torpor")` return, done at the same time."""
        return list(self._pool.map(act, self.sides))

    def send(self, side: str, service: str, method: str, path: str, **options: Any) -> httpx.Response:
        url = self.sides[side][service] + PREFIX.get(service, "") + path
        made = {key: value() if callable(value) else value for key, value in options.items()}
        response = self.http.request(method, url, **made)
        self.http.cookies.clear()
        return response

    def each(self, service: str, method: str, path: str, **options: Any) -> tuple[httpx.Response, httpx.Response]:
        stock, torpor = self.on_both(lambda side: self.send(side, service, method, path, **options))
        return stock, torpor

    def both(self, status: int, service: str, method: str, path: str, **options: Any) -> Answer:
        """The answer, which has to have this status: two sides that fail alike prove nothing."""
        stock, torpor = map(answer_of, self.each(service, method, path, **options))
        check_alike(stock, torpor)
        assert stock.status == status, stock.body
        return stock

    def call(self, status: int, service: str, method: str, /, **arguments: Any) -> Answer:
        """An API method with its arguments as JSON."""
        return self.both(status, service, "POST", f"/{method}", json=arguments)


def check_alike(stock: Answer, torpor: Answer) -> None:
    difference = "\n".join(difflib.unified_diff(stock.lines(), torpor.lines(), "bentoml serve", "torpor", n=0))
    assert not difference, "\n" + difference


def start(folder: Path, stack: ExitStack) -> Pair:
    """Both sides of every service; `stack` ends them."""
    sources = {name: source(folder / name, name) for name in SERVICES}
    ports = {name: free_port() for name in SERVICES}
    stock = {name: serve(folder, sources[name], stack)[1] for name in SERVICES}
    data = folder / "data"
    with home(folder):
        found = up_detached(["--data", str(data), "--port", "0"], data)
        stack.callback(down, data)
        pair = Pair(stock, {name: f"http://127.0.0.1:{ports[name]}" for name in SERVICES}, folder, found["url"])
        stack.callback(pair.close)
        # On a port of its own: a service does not know the prefix of its path, which its absolute redirects lose.
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: pair.deploy(sources[name], name, port=ports[name]), SERVICES))
    await_ready(stock)
    return pair


@contextmanager
def home(folder: Path) -> Iterator[None]:
    """BentoML's own folder, for what runs or is started within."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BENTOML_DO_NOT_TRACK", "True")
        environment.setenv("BENTOML_HOME", str(folder / "bentoml"))
        environment.delenv("BENTOML_RESULT_STORE", raising=False)
        (folder / "bentoml").mkdir(exist_ok=True)
        yield


def source(folder: Path, name: str) -> Path:
    """A folder with that service, as a user has it."""
    folder.mkdir()
    shutil.copy(HERE / f"{name}.py", folder / "service.py")
    (folder / "bentofile.yaml").write_text(BENTOFILE.format(name=name.capitalize()) + ARGUMENTS.get(name, ""))
    return folder


def serve(folder: Path, source: Path, stack: ExitStack) -> tuple[subprocess.Popen[bytes], str]:
    """Stock `bentoml serve`, and its address; its log is beside its source."""
    port = free_port()
    env = {
        **os.environ,
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(source / ".bentoml"),
        "BENTOML_RESULT_STORE": str(source / ".tasks.db"),
        "WITNESS": str(folder / f"stock-{source.name}.witness"),
    }
    (source / ".bentoml").mkdir()
    log = stack.enter_context((folder / f"stock-{source.name}.log").open("wb"))
    command = [sys.executable, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=source, env=env, stdout=log, stderr=log, start_new_session=True)
    stack.callback(end, process)
    return process, f"http://127.0.0.1:{port}"


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_ready(urls: dict[str, str]) -> None:
    give_up = time.monotonic() + START_WITHIN
    for name, url in urls.items():
        while True:
            try:
                if httpx.get(url + PREFIX.get(name, "") + "/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < give_up, f"bentoml serve of {name} does not answer"
            time.sleep(0.1)


def until(happened: Callable[[], Any], within: float = 20) -> None:
    give_up = time.monotonic() + within
    while not happened():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)
