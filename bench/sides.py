"""The two proxies that are compared, and the upstreams behind both: processes that end with the bench."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.debian import libraries
from bench.platform import ROOT

BODY = 1024  # bytes of a request's body, and of an answer's
PLAIN = "plain"  # the endpoint whose answer is one body
EVENTS = "events"  # the endpoint whose answer is a stream
_WITHIN = 10.0  # seconds until a process of ours must serve
_DOWN_WITHIN = 5.0  # seconds from TERM until KILL

_COMMON = """
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
    {http}
}}
"""
_UPSTREAM = """
    server {{
        listen unix:{folder}/plain.sock backlog=2048;
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            default_type application/json;
            add_header Server-Timing "queue;dur=0.1, infer;dur=$request_time";
            return 200 "{body}";
        }}
    }}
"""
_PROXY = """
    upstream plain {{ server unix:{folder}/plain.sock; keepalive 256; keepalive_requests 1000000000; }}
    upstream events {{ server unix:{folder}/events.sock; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Connection "";
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Request-Id $request_id;
        add_header X-Request-Id $request_id;
        location /endpoints/plain/ {{ proxy_pass http://plain/; }}
        location /endpoints/events/ {{ proxy_pass http://events/; proxy_buffering off; }}
    }}
"""


@dataclass(frozen=True, slots=True)
class Side:
    """One way to the upstreams: where it listens, the path before theirs, and the process that is paid for it."""

    name: str
    port: int
    prefix: str
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that the process and its children have used, to the nanosecond."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        tasks = [task for pid in (self.pid, *children) for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@dataclass(frozen=True, slots=True)
class Cores:
    """`proxy` has a core of its own, `others` (upstream and callers) have the other."""

    proxy: int
    others: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first two that this process may use. Raises SystemExit where there is one only."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise SystemExit("the bench needs two cores, and may use one\nRun it on a larger machine.")
        return cls(*allowed[:2])


@contextlib.contextmanager
def sides(folder: Path, nginx: str, cores: Cores) -> Iterator[tuple[Side, Side, Side]]:
    """Torpor, nginx, and the way around both, in front of the same upstreams."""
    with contextlib.ExitStack() as running:
        around, through = free_port(), free_port()
        body = "x" * BODY
        upstream = _nginx(nginx, folder, "upstream", _UPSTREAM.format(folder=folder, port=around, body=body))
        upstream_pid = running.enter_context(process(upstream, cores.others, libraries())).pid
        streamer = [sys.executable, "-m", "bench.streamer", f"{folder}/events.sock"]
        first_line(running.enter_context(process(streamer, cores.others)))
        proxy = _nginx(nginx, folder, "proxy", _PROXY.format(folder=folder, port=through))
        nginx_pid = running.enter_context(process(proxy, cores.proxy, libraries())).pid
        for port in (around, through):
            wait_for(port)
        sockets = [f"{name}={folder}/{name}.sock" for name in (PLAIN, EVENTS)]
        router = running.enter_context(process([sys.executable, "-m", "bench.bare_router", *sockets], cores.proxy))
        yield (
            Side("torpor", int(first_line(router)), "/endpoints", router.pid),
            Side("nginx", through, "/endpoints", nginx_pid),
            Side("direct", around, "", upstream_pid),
        )


@contextlib.contextmanager
def process(
    command: Sequence[str], core: int, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Runs on one core until the block ends, or this process does."""
    bound = ["taskset", "-c", str(core), *command]
    if shutil.which("setpriv") is not None:
        bound = ["setpriv", "--pdeathsig", "TERM", *bound]
    child = subprocess.Popen(bound, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_DOWN_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _nginx(program: str, folder: Path, name: str, http: str) -> list[str]:
    config = folder / f"{name}.conf"
    text = _COMMON.format(folder=folder, name=name, http=http)
    if os.geteuid() == 0:
        text = f"user {pwd.getpwuid(0).pw_name};\n{text}"  # its worker must reach the sockets in our folder
    config.write_text(text)
    return [program, "-p", str(folder), "-c", str(config), "-e", f"{folder}/{name}.log"]


def first_line(child: subprocess.Popen[str]) -> str:
    """What a child of ours prints once it serves. Raises RuntimeError when it ends before that."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"{child.args!r} ended before it served\nIts last words are above.")
    return line.strip()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    """Returns when something listens. Raises TimeoutError."""
    until = time.monotonic() + _WITHIN
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        if time.monotonic() > until:
            raise TimeoutError(f"nothing listens on port {port} after {_WITHIN:.0f} s\nLook at what nginx says above.")
        time.sleep(0.01)
