"""What the control plane reads from a request, checked before anything changes."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request as HTTPRequest

from router.config import parse_settings
from router.core.settings import Settings
from router.shell.request import Request
from torpor.errors import BadRequest, BodyTooLarge

JSON_MAX = 1 << 20  # bytes
TAIL_DEFAULT = 100
TAIL_MAX = 10_000


async def read_object(request: HTTPRequest) -> dict[str, Any]:
    """The body as a JSON object."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > JSON_MAX:
            raise BodyTooLarge(f"the body is longer than {JSON_MAX} bytes\nsend less")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}\nsend one JSON object") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body is a JSON {type(value).__name__}\nsend one JSON object")
    return value


def read_deploy(body: dict[str, Any], defaults: Settings) -> Request:
    """A deploy's request. Raises BadRequest or InvalidConfig with all faults."""
    unknown = sorted(set(body) - {"name", "bento", "env", "settings"})
    if unknown:
        raise BadRequest(f"unknown keys: {', '.join(unknown)}\na deploy takes name, bento, env and settings")
    name, bento, env = body.get("name"), body.get("bento"), body.get("env", {})
    if not isinstance(name, str) or not isinstance(bento, str):
        raise BadRequest("`name` and `bento` have to be strings\nname the endpoint and the tag of an uploaded bento")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise BadRequest("`env` has to be an object of strings\nwrite numbers as strings")
    bad = [key for key, value in env.items() if not key or "=" in key or "\0" in key + value]
    if bad:
        raise BadRequest(f"these cannot be environment variables: {bad}\nuse names without '=' and NUL")
    settings = body.get("settings", {})
    if not isinstance(settings, dict):
        raise BadRequest("`settings` has to be an object\nsee docs/config.md for its keys")
    return Request(name, bento, env, parse_settings(settings, defaults))


def read_flag(request: HTTPRequest, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name}={value!r}\nuse true or false")
    return value in ("true", "1")


def read_tail(request: HTTPRequest) -> int:
    value = request.query_params.get("tail", str(TAIL_DEFAULT))
    if not value.isdigit() or int(value) > TAIL_MAX:
        raise BadRequest(f"tail={value!r}\nuse a number of lines from 0 to {TAIL_MAX}")
    return int(value)
