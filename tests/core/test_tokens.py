"""What a token may do, and what cannot be one."""

from __future__ import annotations

import pytest

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
    with pytest.raises(BadRequest, match=r"use call, call:<endpoint> or admin"):
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
