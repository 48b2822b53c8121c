"""Which scope a request to BentoCloud's API, or for a page of the control plane, needs."""

from __future__ import annotations

import re

from router.core.tokens import CLOUD, READ_CLUSTER, READ_ORGANIZATION, WRITE_CLUSTER, WRITE_ORGANIZATION

Scopes = tuple[str, ...]  # one of them is enough

EVERYBODY: Scopes = ()  # no token: the page asks for a session itself, or there is nothing to guard
# The pages of the control plane, and the calls by which a command line that has no token yet gets one.
_OPEN = re.compile(rb"/login|/logout|/api_tokens|/deployments(?:/.*)?|/api/v1/auth/(?:code|token)")
_ANY = re.compile(rb"/api/v1/(?:auth/current|current_org)")
_ORGANIZATION = re.compile(rb"/api/v[12]/(?:(?:bento|model)_repositories|bentos|models|org_secrets|api_tokens)(?:/.*)?")
_CLUSTER = re.compile(rb"/api/v[12]/(?:clusters|instance_types|deployments)(?:/.*)?")
_LINK = re.compile(rb".*/presign_download_url")  # a PATCH that changes nothing: `bentoml pull` sends it
_READS = frozenset((b"GET", b"HEAD"))


def scopes_for(method: bytes, path: bytes) -> Scopes | None:
    """None for what is neither of the API nor a page. The path is taken as it came, query included.

    1 what is open; 2 who one is, and where; 3 the organisation's things; 4 the cluster's; 5 what else the API may
    have, also under a path that only decodes to one of those: the whole of it.
    """
    path = path.partition(b"?")[0]
    if _OPEN.fullmatch(path):  # 1
        return EVERYBODY
    if not path.startswith((b"/api/", b"/ws/")):
        return None
    reads = method in _READS
    if reads and _ANY.fullmatch(path):  # 2
        return READ_ORGANIZATION, READ_CLUSTER
    if _ORGANIZATION.fullmatch(path):  # 3
        return (READ_ORGANIZATION,) if reads or _LINK.fullmatch(path) else (WRITE_ORGANIZATION,)
    if _CLUSTER.fullmatch(path) or path.startswith(b"/ws/"):  # 4
        return (READ_CLUSTER,) if reads else (WRITE_CLUSTER,)
    return (CLOUD,)  # 5
