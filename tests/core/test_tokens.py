"""What a token may do, and what cannot be one."""

from __future__ import annotations

import pytest

from router.core.cloud import scopes_for
from router.core.tokens import Token, check_name, check_scopes, viewed
from torpor.errors import BadRequest


@pytest.mark.parametrize(
    ("scopes", "needed", "allowed"),
    [
        (("admin",), "admin", True),
        (("admin",), "call:hello", True),
        (("call",), "call:hello", True),
        (("call",), "admin", False),
        (("call:hello",), "call:hello", True),
        (("call:hello",), "call:hell", False),
        (("call:hello",), "call:", False),
        (("call:hello", "call:other"), "call:other", True),
        (("call:admin",), "admin", False),
        (("admin",), "write_cluster", True),
        (("admin",), "api", True),
        (("api",), "write_organization", True),
        (("api",), "read_cluster", True),
        (("api",), "call:hello", True),
        (("api",), "call", True),
        (("api",), "admin", False),
        (("write_organization",), "read_organization", True),
        (("write_organization",), "read_cluster", False),
        (("write_organization",), "api", False),
        (("write_cluster",), "read_cluster", True),
        (("write_cluster",), "call:hello", False),
        (("read_cluster",), "write_cluster", False),
        (("read_organization",), "read_organization", True),
        (("call",), "read_organization", False),
    ],
)
def test_a_scope_allows_what_it_names_and_no_more(scopes: tuple[str, ...], needed: str, allowed: bool) -> None:
    assert Token("1", "n", b"", scopes, 0.0).allows(needed) is allowed


def test_a_token_ends_at_its_instant_and_when_it_is_revoked() -> None:
    token = Token("1", "n", b"", ("call",), 0.0, expires_at=10.0)
    assert token.usable(9.9)
    assert not token.usable(10.0)
    assert not Token("1", "n", b"", ("call",), 0.0, revoked=True).usable(1.0)


@pytest.mark.parametrize("scopes", [[], ["root"], ["call:"], ["call:Hello"], ["call", "admin:x"], ["call:a/b"]])
def test_what_is_no_scope_is_refused(scopes: list[str]) -> None:
    with pytest.raises(BadRequest, match=r"use call, call:<endpoint>, api, .* or admin"):
        check_scopes(scopes)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\nb", "x" * 64])
def test_what_cannot_be_a_tokens_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_name(name)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        (b"GET", b"/torpor/v1/endpoints/hello", "hello"),
        (b"HEAD", b"/torpor/v1/endpoints/hello?x=1", "hello"),
        (b"DELETE", b"/torpor/v1/endpoints/hello", None),
        (b"GET", b"/torpor/v1/endpoints/hello/logs", None),
        (b"GET", b"/torpor/v1/endpoints/hello%2Flogs", None),
        (b"GET", b"/torpor/v1/endpoints/", None),
        (b"GET", b"/torpor/v1/endpoints", None),
    ],
)
def test_only_an_endpoints_view_is_read_by_who_may_call_it(method: bytes, path: bytes, name: str | None) -> None:
    assert viewed(method, path) == name


@pytest.mark.parametrize(
    ("request_line", "needed"),
    [
        ("GET /api/v1/auth/current", ("read_organization", "read_cluster")),
        ("GET /api/v1/current_org?x=1", ("read_organization", "read_cluster")),
        ("GET /api/v1/bento_repositories/b/bentos?count=1", ("read_organization",)),
        ("PUT /api/v1/model_repositories/m/models/1/upload", ("write_organization",)),
        ("PATCH /api/v1/bento_repositories/b/bentos/1/presign_download_url", ("read_organization",)),
        ("PATCH /api/v1/bento_repositories/b/bentos/1/presign_upload_url", ("write_organization",)),
        ("GET /api/v1/org_secrets", ("read_organization",)),
        ("DELETE /api/v1/org_secrets/s", ("write_organization",)),
        ("POST /api/v1/api_tokens", ("write_organization",)),
        ("GET /api/v1/instance_types?cluster=", ("read_cluster",)),
        ("GET /api/v1/clusters/default", ("read_cluster",)),
        ("GET /api/v2/deployments", ("read_cluster",)),
        ("PUT /api/v2/deployments/e", ("write_cluster",)),
        ("POST /api/v2/deployments/e/terminate", ("write_cluster",)),
        ("GET /ws/v2/deployments/e/pods", ("read_cluster",)),
        ("GET /ws/v1/clusters/default/tail", ("read_cluster",)),
        ("GET /api/v1/org_secrets_of_others", ("api",)),
        ("GET /api/v1/nothing", ("api",)),
        ("DELETE /api/v2/deploy%6dents/e", ("api",)),
        ("POST /api/v1/auth/current", ("api",)),
        ("GET /api/v1/auth/code", ()),
        ("GET /api/v1/auth/token?code=x", ()),
        ("GET /api/v1/auth/token/x", ("api",)),
        ("POST /login", ()),
        ("GET /login/x", None),
        ("GET /api_tokens?code=x", ()),
        ("GET /api_tokens/x", None),
        ("GET /deployments/e", ()),
        ("GET /deploymentss", None),
        ("GET /%61pi/v1/api_tokens", None),
        ("GET /torpor/v1/status", None),
        ("GET /", None),
    ],
)
def test_each_call_of_the_api_needs_the_scope_of_what_it_touches(
    request_line: str, needed: tuple[str, ...] | None
) -> None:
    method, _, path = request_line.encode().partition(b" ")
    assert scopes_for(method, path) == needed
