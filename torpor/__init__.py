"""torpor: model endpoints that sleep when nobody calls and wake while the first caller waits.

Public names load on first use, so that `import torpor` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "MockTransport", "TorporError", "__version__", "errors"]

if TYPE_CHECKING:
    from torpor import errors
    from torpor.client import AsyncClient, Client, MockTransport
    from torpor.errors import TorporError

_HOMES = {
    "AsyncClient": "torpor.client",
    "Client": "torpor.client",
    "MockTransport": "torpor.client",
    "TorporError": "torpor.errors",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("torpor.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'torpor' has no attribute {name!r}")
