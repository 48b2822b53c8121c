"""Who may speak to the control plane of a router that asks for no token: no foreign web page.

A page of any site can send requests to 127.0.0.1 from its reader's browser. Such a request names the page's origin,
or (after DNS rebinding) the page's host; neither is ours.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from starlette.types import Scope

from torpor.errors import Forbidden


def check_source(scope: Scope, host: bytes, domain: str | None) -> None:
    """Raises Forbidden for a request that a foreign page sent."""
    name = host.decode("latin-1").lower()
    if not ours(split(f"//{name}").hostname or "", domain):
        raise Forbidden(f"the host {name!r} is not this router's\nuse 127.0.0.1, localhost, or set `domain`")
    origin = dict(scope["headers"]).get(b"origin")
    if origin is not None and split(origin.decode("latin-1")).netloc.lower() != name:
        raise Forbidden("a page of another origin sent this request\nuse torpor's own clients")


def split(url: str) -> SplitResult:
    """Raises Forbidden for what is no address."""
    try:
        return urlsplit(url)
    except ValueError:
        raise Forbidden(f"{url!r} is no address\nsend the Host and the Origin of this router") from None


def ours(name: str, domain: str | None) -> bool:
    """Whether a host name can only mean this machine or the router's own domain."""
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    if domain is not None and (name == domain or name.endswith("." + domain)):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
