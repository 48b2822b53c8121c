"""Errors as bytes: a refusal in the shape that the called path speaks (OpenAI's, Open Inference's, BentoML's)."""

from __future__ import annotations

import json
import math
import re
from http import HTTPStatus
from typing import Any, Final

from torpor.errors import TorporError, Unauthorized
from torpor.wire import CLOUD_PATHS, ENDPOINTS, REQUEST_ID, RETRY_AFTER_MAX

_PREFIX: Final = re.compile(re.escape(ENDPOINTS.encode()) + rb"/[^/?]*")
_SENTENCES: Final = tuple(prefix.encode() for prefix in CLOUD_PATHS)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def shape(error: TorporError, path: bytes) -> dict[str, Any]:
    """The error's JSON body for a caller of `path` (as it came, or as the replica sees it)."""
    prefix = _PREFIX.match(path)
    inner = path[prefix.end() :] if prefix else path
    if inner.startswith(b"/v1/"):
        kind = "invalid_request_error" if error.status < 500 and not error.retryable else "api_error"
        return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}
    if inner.startswith(b"/v2/"):
        return {"error": error.message}
    return error.body()


def refusal(
    error: TorporError, path: bytes, request_id: str, *, keep: bool, bodiless: bool, control: bool = False
) -> bytes:
    """The whole answer. `bodiless`: the request was HEAD; `control`: it was for the control plane, of which a part
    speaks BentoCloud's API.
    """
    plain = control and path.startswith(_SENTENCES)
    body = (error.sentence() if plain else json.dumps(shape(error, path))).encode()
    lines = [
        f"HTTP/1.1 {error.status} {_reason(error.status)}",
        "Content-Type: text/plain; charset=utf-8" if plain else "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"{REQUEST_ID}: {request_id}",
        "Connection: keep-alive" if keep else "Connection: close",
    ]
    if isinstance(error, Unauthorized):
        lines.append('WWW-Authenticate: Bearer realm="torpor"')
    if error.retry_after is not None:
        lines.append(f"Retry-After: {math.ceil(min(RETRY_AFTER_MAX, max(0.0, error.retry_after)))}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (b"" if bodiless else body)
