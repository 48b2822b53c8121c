"""The shapes of BentoCloud's API: resources, lists, instants, and errors as one sentence.

The client is `bentoml/_internal/cloud` of the installed BentoML: its types are attrs classes, in which a missing
field is an error that its user sees as a stack of class names. So every field is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from torpor.errors import BadRequest, TorporError

ORGANISATION = "default"  # a self-hosted platform has one of each
CLUSTER = "default"
NAMESPACE = "default"
COUNT_MAX = 1000  # items of one list


def resource(
    kind: str,
    name: str,
    uid: str,
    created_at: float,
    updated_at: float | None = None,
    labels: Sequence[dict[str, str]] = (),
) -> dict[str, Any]:
    """What every answer of a thing begins with. `kind`: its `resource_type`; instants in seconds since the epoch."""
    return {
        "uid": uid,
        "created_at": instant(created_at),
        "updated_at": instant(created_at if updated_at is None else updated_at),
        "deleted_at": None,
        "name": name,
        "resource_type": kind,
        "labels": list(labels),
    }


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def user(name: str) -> dict[str, Any]:
    """Whoever holds a token: torpor knows people by the names of their tokens."""
    return {**resource("user", name, name, 0.0), "email": name, "first_name": name, "last_name": ""}


def organisation() -> dict[str, Any]:
    return {**resource("organization", ORGANISATION, ORGANISATION, 0.0), "description": "this torpor platform"}


def cluster() -> dict[str, Any]:
    """The short form, as it lies in other answers."""
    return {
        **resource("cluster", CLUSTER, CLUSTER, 0.0),
        "description": "the machine that torpor runs on",
        "organization_name": ORGANISATION,
        "creator": user("torpor"),
        "is_first": True,  # keeps the link that the command line prints short: /deployments/<name>
    }


def listing(
    request: Request, items: Sequence[Any], view: Callable[[Any], dict[str, Any]], unasked: int = 10
) -> Response:
    """The part of `items` that `start` and `count` of the query ask for; only that part is made into views.

    `unasked`: how many where the query says nothing.
    """
    start, count = whole(request, "start", 0), min(COUNT_MAX, whole(request, "count", unasked) or COUNT_MAX)
    shown = [view(item) for item in items[start : start + count]]
    return JSONResponse({"start": start, "count": count, "total": len(items), "items": shown})


def whole(request: Request, name: str, default: int) -> int:
    """A number of the query; empty values arrive as empty strings."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise BadRequest(f"{name}={text!r} is no whole number\nleave it out, or name one from 0 on")
    return int(text)


def sentence(error: TorporError) -> Response:
    """An error as the command line prints it: behind `request failed with status code N:`."""
    return PlainTextResponse(error.sentence(), error.status)
