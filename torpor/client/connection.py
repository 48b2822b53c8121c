"""Between flows and httpx: requests out of asks, answers out of responses, errors out of exceptions."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

import torpor
from torpor.client.flow import Answer, Ask
from torpor.errors import CallTimeout, GaveUp, PlatformUnreachable, TorporError, from_body
from torpor.wire import DEFAULT_PORT, TOKEN

CONNECT_WITHIN = 5.0
CONTROL_WITHIN = 900.0  # an answer of the control plane: a deploy may have to make an environment


def address(url: str | None) -> str:
    """The platform's address: the argument, else $TORPOR_URL, else the default port of this machine."""
    return (url or os.environ.get("TORPOR_URL") or f"http://127.0.0.1:{DEFAULT_PORT}").rstrip("/")


def headers(token: str | None) -> dict[str, str]:
    out = {"User-Agent": f"torpor/{torpor.__version__}"}
    token = token or os.environ.get("TORPOR_TOKEN")
    if token:
        out[TOKEN] = f"Bearer {token}"
    return out


def options(ask: Ask) -> dict[str, Any]:
    """The keywords of httpx's `request`."""
    out: dict[str, Any] = {"params": dict(ask.params), "headers": dict(ask.headers)}
    out["timeout"] = httpx.Timeout(ask.within or CONTROL_WITHIN, connect=CONNECT_WITHIN)
    if ask.form is not None:
        out["data"], out["files"] = ask.form
    elif ask.content is not None:
        out["content"] = ask.content
    elif ask.json is not None:
        out["json"] = ask.json
    return out


def answer_of(response: httpx.Response) -> Answer:
    """A response that was read whole."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip()
    body = None
    if media_type.endswith("json"):
        try:
            body = response.json()
        except ValueError:
            body = None
    after = response.headers.get("retry-after", "")
    retry_after = float(after) if after.isdigit() else None
    return Answer(response.status_code, media_type, response.content, retry_after, body)


@contextmanager
def translated(url: str, within: float | None = None) -> Iterator[None]:
    """httpx's exceptions as ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise PlatformUnreachable(
            f"nothing answers at {url}: {error}\nstart the platform with `torpor up`, or set TORPOR_URL"
        ) from error
    except httpx.TimeoutException as error:
        raise CallTimeout(f"no answer within {within or CONTROL_WITHIN:g} s\nallow a longer answer_within") from error
    except httpx.HTTPError as error:
        raise GaveUp(
            f"the line to {url} broke: {error}\nit may have run; call again only what may run twice"
        ) from error
    except httpx.InvalidURL as error:
        raise PlatformUnreachable(f"{url!r} is not an address: {error}\nset TORPOR_URL to http://host:port") from error


def deployed(line: str) -> dict[str, Any]:
    """One line of a deploy's answer. Raises the error that it may be."""
    event: dict[str, Any] = json.loads(line)
    if event.get("event") == "error":
        raise from_body(int(event.get("status", 500)), event)
    return event


def cut_off() -> TorporError:
    return GaveUp("the deploy ended without a result\nsee `torpor ls` for what is there, and deploy again")


async def read_file(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A file's chunks for the async client; each is read at once, from a local disk."""
    for chunk in chunks:
        yield chunk
