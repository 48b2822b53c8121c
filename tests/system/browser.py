"""Debian's chromium without a window: a page as its reader has it, and what the browser complained of."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WITHIN = 60.0  # seconds until something that should happen is a failure
EVERY = 0.05  # seconds between two looks
COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")


def chromium() -> str:
    found = shutil.which("chromium")
    assert found is not None, "no chromium on the PATH\napt-get install chromium"
    return found


@contextmanager
def profile() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="torpor-browser-")
    try:
        yield f"--user-data-dir={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dumped(url: str) -> tuple[str, str]:
    """A page's elements once it is loaded, and what the browser wrote on its console."""
    with profile() as own:
        command = [chromium(), *FLAGS, own, "--enable-logging=stderr", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


class Page:
    """One page of a browser that goes on running. `complaints`: what it wrote on its console."""

    def __init__(self, connection: ClientConnection) -> None:
        self.complaints: list[dict[str, Any]] = []
        self._connection = connection
        self._calls = 0
        for part in ("Log", "Runtime", "Page"):
            self.call(f"{part}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._connection.recv(WITHIN))
            if told.get("method") in COMPLAINTS:
                self.complaints.append(told["params"])
            if told.get("id") == self._calls:
                assert "error" not in told, told
                return dict(told["result"])

    def show(self, url: str, width: int = 1000, scheme: str = "light") -> None:
        """Returns when it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as if its window were in front
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def ask(self, script: str) -> Any:
        """The value of a script's expression."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, script: str) -> None:
        ends = time.monotonic() + WITHIN
        while not self.ask(script):
            assert time.monotonic() < ends, f"never: {script}"
            time.sleep(EVERY)

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        width, height = self.ask("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    with profile() as own:
        command = [chromium(), *FLAGS, own, "--remote-debugging-port=0", "about:blank"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            port = port_of(Path(own.partition("=")[2], "DevToolsActivePort"), process)
            pages = httpx.get(f"http://127.0.0.1:{port}/json", timeout=WITHIN).json()
            [first] = [each for each in pages if each["type"] == "page"]
            with connect(first["webSocketDebuggerUrl"], max_size=None) as connection:
                yield Page(connection)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def port_of(file: Path, process: subprocess.Popen[bytes]) -> int:
    """On which the browser takes commands."""
    ends = time.monotonic() + WITHIN
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None, "the browser ended at once"
        assert time.monotonic() < ends, "the browser never listened"
        time.sleep(EVERY)
    return int(file.read_text().split()[0])
