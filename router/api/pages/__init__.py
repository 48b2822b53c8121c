"""Pages of the control plane: plain HTML, made on the server, without scripts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

# A page shows what callers and services wrote: it runs no script, loads nothing, and lies in no frame. Its address may
# hold a login's code, which no other site is told.
GUARDS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def page(template: str, status: int = 200, **shown: Any) -> HTMLResponse:
    """A template of this folder with its values, which are escaped."""
    return HTMLResponse(environment().get_template(template).render(shown), status, GUARDS)


@cache
def environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
