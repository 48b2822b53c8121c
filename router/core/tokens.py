"""Tokens as the core sees them: what each may do, and until when. Their text is known to nobody but their holder."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torpor.errors import BadRequest
from torpor.wire import API, NAME

ADMIN = "admin"  # everything
CALL = "call"  # to call every endpoint; `call:<endpoint>`: that one
CALL_ONE = f"{CALL}:"
# The scopes of BentoCloud's API. What writes also reads; `api` is all four, and calling every endpoint.
CLOUD = "api"
READ_ORGANIZATION, WRITE_ORGANIZATION = "read_organization", "write_organization"
READ_CLUSTER, WRITE_CLUSTER = "read_cluster", "write_cluster"
_WRITERS = {READ_ORGANIZATION: WRITE_ORGANIZATION, READ_CLUSTER: WRITE_CLUSTER}
_OF_CLOUD = frozenset((CLOUD, READ_ORGANIZATION, WRITE_ORGANIZATION, READ_CLUSTER, WRITE_CLUSTER))
SCOPES = f"{CALL}, {CALL}:<endpoint>, {', '.join(sorted(_OF_CLOUD))} or {ADMIN}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
# What whoever may call an endpoint may read of it in the control plane: its view, where clients find its methods.
_VIEW = re.compile(rb"%b/endpoints/([a-z0-9-]+)(?:\?.*)?" % API.encode())


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `digest`: SHA-256 of its text; instants in seconds since the epoch."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked: bool = False
    description: str = ""

    def usable(self, now: float) -> bool:
        return not self.revoked and (self.expires_at is None or now < self.expires_at)

    def allows(self, needed: str) -> bool:
        """Whether it may do what needs the scope: `call:<endpoint>`, `admin`, or one of the API's."""
        scopes = self.scopes
        if ADMIN in scopes or needed in scopes:
            return True
        if needed.startswith(CALL_ONE):
            return CALL in scopes or CLOUD in scopes
        return (CLOUD in scopes and needed != ADMIN) or _WRITERS.get(needed) in scopes


def viewed(method: bytes, path: bytes) -> str | None:
    """The endpoint of which a request to the control plane reads the view, None for every other request.

    The path is taken as it came: one that only decodes to a view's is none.
    """
    match = _VIEW.fullmatch(path) if method in (b"GET", b"HEAD") else None
    return match[1].decode() if match else None


def check_name(name: str) -> str:
    """Raises BadRequest for what cannot be a token's name."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name!r} cannot be a token's name\nuse 1 to 63 letters, digits and . _ @ -, with a letter or digit first"
        )
    return name


def check_scopes(scopes: list[str]) -> tuple[str, ...]:
    """Raises BadRequest for none, and for what is no scope."""
    known = _OF_CLOUD | {ADMIN, CALL}
    wrong = [scope for scope in scopes if scope not in known and not _of_endpoint(scope)]
    if wrong or not scopes:
        found = f"{wrong[0]!r} is no scope" if wrong else "a token without a scope may do nothing"
        raise BadRequest(f"{found}\nuse {SCOPES}")
    return tuple(dict.fromkeys(scopes))


def _of_endpoint(scope: str) -> bool:
    kind, colon, name = scope.partition(":")
    return kind == CALL and bool(colon) and NAME.fullmatch(name) is not None
