"""Between flows and httpx: requests out of asks, answers out of responses, errors out of exceptions."""

from __future__ import annotations

import json
import mimetypes
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any

import httpx

import torpor
from torpor.client.flow import Answer, Ask, Form, Upload, late
from torpor.errors import GaveUp, InvalidConfig, PlatformUnreachable, TorporError, from_body
from torpor.local import data_folder, read_address
from torpor.wire import DEFAULT_PORT, TOKEN

CONNECT_WITHIN = 5.0
CONTROL_WITHIN = 900.0  # an answer of the control plane: a deploy may have to make an environment
CHUNK = 1 << 16  # bytes
Verify = str | Path | ssl.SSLContext | bool | None

SAID_MAX = 2000  # characters that an error keeps of an answer that is text


def address(url: str | None) -> str:
    """The platform's address: the argument, else $TORPOR_URL, else what runs on the data folder, else the default port.

    Raises InvalidConfig for what is no address.
    """
    running = None if url or os.environ.get("TORPOR_URL") else read_address(data_folder())
    found = url or os.environ.get("TORPOR_URL") or (running or {}).get("url") or f"http://127.0.0.1:{DEFAULT_PORT}"
    try:
        parsed = httpx.URL(found)
        usable = parsed.scheme in ("http", "https") and bool(parsed.host)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise InvalidConfig(f"{found!r} is not a platform's address\ngive http://host:port, there or in TORPOR_URL")
    return str(found).rstrip("/")


def session(url: str, token: str | None, verify: Verify) -> dict[str, Any]:
    """The keywords of httpx's clients. Raises InvalidConfig for a file that holds no certificate."""
    headers = {"User-Agent": f"torpor/{torpor.__version__}"}
    token = token or os.environ.get("TORPOR_TOKEN")
    if token:
        headers[TOKEN] = f"Bearer {token}"
    return {
        "base_url": url,
        "headers": headers,
        "verify": trust(url, verify),
        # The platform queues, by its own bounds. httpx looks at every idle connection for every call: keep few.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20),
        "trust_env": not is_loopback(httpx.URL(url).host),  # a proxy of the environment is not for this machine
    }


def trust(url: str, verify: Verify) -> ssl.SSLContext | bool:
    """Whose certificates are trusted: the argument's, else $TORPOR_CACERT's, else those of this machine's platform
    where it is the one that is called, else everybody's.
    """
    if verify is None:
        running = None if os.environ.get("TORPOR_CACERT") else read_address(data_folder())
        ours = running.get("cacert") if running is not None and running["url"] == url else None
        verify = os.environ.get("TORPOR_CACERT") or ours or True
    if isinstance(verify, (bool, ssl.SSLContext)):
        return verify
    try:
        return ssl.create_default_context(cafile=str(verify))
    except OSError as error:  # an SSLError is one too
        raise InvalidConfig(
            f"no certificate can be read from {str(verify)!r}: {error.strerror or error}\n"
            "name a PEM file with --cacert, TORPOR_CACERT or verify="
        ) from None


def over_socket(path: str) -> httpx.BaseTransport:
    """To a router of this machine, by its own socket."""
    return httpx.HTTPTransport(uds=path)


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def request(ask: Ask, pieces: Callable[[Iterable[bytes]], Any] = iter) -> Iterator[dict[str, Any]]:
    """The keywords of httpx's `stream`. Its files are open as long as this is. `pieces`: the async client's."""
    out: dict[str, Any] = {"method": ask.method, "url": ask.path, "params": dict(ask.params)}
    headers = dict(ask.headers)
    within = None if ask.within == float("inf") else ask.within or CONTROL_WITHIN
    out["timeout"] = httpx.Timeout(within, connect=CONNECT_WITHIN)
    with ExitStack() as opened:
        if isinstance(ask.body, Form):
            out["data"] = dict(ask.body.fields)
            out["files"] = [(field, (each.name, content(each, opened))) for field, each in ask.body.files]
        elif isinstance(ask.body, Upload):
            file = content(ask.body, opened)
            out["content"] = file if isinstance(file, bytes) else pieces(chunks(file))
            if (media_type := mimetypes.guess_type(ask.body.name)[0]) is not None:
                headers["Content-Type"] = media_type
        elif ask.body is not None:
            out["content"] = ask.body if isinstance(ask.body, bytes) else pieces(ask.body)
        yield out | {"headers": headers}


def content(upload: Upload, opened: ExitStack) -> bytes | IO[bytes]:
    if isinstance(upload.source, Path):
        return opened.enter_context(upload.source.open("rb"))
    return upload.source


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """From its start, where it can be set there: a call may be tried again."""
    if file.seekable():
        file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk


async def later(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    """For the async client; each part is read at once, from a local disk."""
    for part in parts:
        yield part


def answer_of(response: httpx.Response, body: bytes) -> Answer:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip()
    parsed: Any = None
    if media_type.endswith("json"):
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
    elif response.status_code >= 400 and media_type.startswith("text/"):
        parsed = body.decode(errors="replace")[:SAID_MAX]
    after = response.headers.get("retry-after", "")
    retry_after = float(after) if after.isdigit() else None
    return Answer(response.status_code, media_type, body, retry_after, parsed, response.extensions.get("torpor.output"))


@contextmanager
def translated(url: str, within: float | None = None) -> Iterator[None]:
    """httpx's exceptions as ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise PlatformUnreachable(
                f"the certificate of {url} is not trusted: {error}\n"
                "name its authority's with --cacert, TORPOR_CACERT or verify="
            ) from error
        raise PlatformUnreachable(
            f"nothing answers at {url}: {error}\nstart the platform with `torpor up`, or set TORPOR_URL"
        ) from error
    except httpx.TimeoutException as error:
        raise late(within or CONTROL_WITHIN) from error
    except httpx.HTTPError as error:
        raise GaveUp(
            f"the line to {url} broke: {error}\nit may have run; call again only what may run twice"
        ) from error


def deployed(line: str) -> dict[str, Any]:
    """One line of a deploy's answer. Raises the error that it may be."""
    event: dict[str, Any] = json.loads(line)
    if event.get("event") == "error":
        raise from_body(int(event.get("status", 500)), event)
    return event


def cut_off() -> TorporError:
    return GaveUp("the deploy ended without a result\nsee `torpor ls` for what is there, and deploy again")
