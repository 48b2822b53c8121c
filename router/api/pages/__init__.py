"""Pages of the control plane: plain HTML, made on the server, readable without a script."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from router.api.pages import words

# A page shows what callers and services wrote: nothing of that is run, it loads nothing of others, and lies in no
# frame. Its own style and script carry a number that is drawn anew for each answer. Its address may hold a login's
# code, which no other site is told.
POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
GUARDS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def page(template: str, status: int = 200, **shown: Any) -> HTMLResponse:
    """A template of this folder with its values, which are escaped."""
    nonce = secrets.token_urlsafe(18)
    text = environment().get_template(template).render(shown, nonce=nonce)
    return HTMLResponse(text, status, {"Content-Security-Policy": POLICY.format(nonce=nonce), **GUARDS})


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {each.__name__: each for each in (words.plain, words.when, words.size, words.took, words.counted)}
    return made
