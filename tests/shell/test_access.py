"""Endpoints that ask for a token by themselves, and endpoints that ask nobody, whatever the platform does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from router.core.access import effective, notes
from router.core.catalog import Registered
from router.core.settings import Settings
from router.core.split import Rule, Variant, line_of
from tests.shell.fakes.wire import play
from tests.shell.test_door import Guarded, guarded

CANARY = "canary"
STATUS = "GET /torpor/v1/status HTTP/1.1\r\nHost: t\r\n"


def registered(name: str, access: bool | None, port: int | None = None) -> Registered:
    return Registered(name, 1, "b:1", {}, Settings(port=port), 1.0, spec={"access": access})


def varied(g: Guarded, name: str, access: bool | None) -> None:
    """Gives an endpoint a canary that says this of its access, and an address of its own."""
    variant = Variant(CANARY, 2, Rule("random", weight=0))
    entry = registered(line_of(name, CANARY), access)
    g.catalog.vary(name, (variant,), {entry.name: entry})


def call(name: str, path: str = "/x", host: str = "t") -> str:
    return f"GET /endpoints/{name}{path} HTTP/1.1\r\nHost: {host}\r\n"


@asynccontextmanager
async def town(required: bool, never: bool = False, opens: bool = True) -> AsyncIterator[Guarded]:
    """The endpoints `open` (it has the own port), `closed`, and `plain`, which says nothing."""
    async with guarded(required, never, opens) as g:
        g.on.calls.catalog = g.catalog
        g.catalog.remove("e")
        for entry in (registered("plain", None), registered("open", False, 7301), registered("closed", True)):
            g.catalog.put(entry)
        yield g


WAYS = {
    "path": ("GET /endpoints/{}/x HTTP/1.1\r\nHost: t\r\n", False),
    "host": ("GET /x HTTP/1.1\r\nHost: {}.localhost\r\n", False),
    "schema": ("GET /endpoints/{}/schema.json HTTP/1.1\r\nHost: t\r\n", True),
    "health": ("GET /healthz HTTP/1.1\r\nHost: {}.localhost\r\n", True),
    "metrics": ("GET /endpoints/{}/metrics HTTP/1.1\r\nHost: t\r\n", True),
    "no slash": ("GET /endpoints/{} HTTP/1.1\r\nHost: t\r\n", True),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_endpoint_asks_on_an_open_platform_and_only_it(way: str) -> None:
    async def scenario() -> None:
        async with town(required=False, never=True) as g:
            request, quiet = WAYS[way]
            scopes = (["call:plain"], ["read_cluster"], ["call:closed"], ["call"], ["api"], ["admin"])
            tokens = [await g.made(*each) for each in scopes]
            unknown = f"Authorization: Bearer tp_{'x' * 43}"
            asked = [(), ("Authorization: Bearer x",), (unknown,), *((token,) for token in tokens)]
            found = [await g.status(request.format("closed"), *given) for given in asked]
            assert found == [401, 401, 401, 403, 403, 200, 200, 200, 200]
            seen = g.on.control.requests if quiet else g.on.upstream.requests
            assert len(seen) == 4, "a refused call goes nowhere"
            assert not any("authorization" in each.headers for each in seen)
            assert [await g.status(request.format(each)) for each in ("plain", "open")] == [200, 200]
            assert [await g.status(each) for each in (STATUS, call("nobody"))] == [200, 404]

    play(scenario)


@pytest.mark.parametrize("way", WAYS)
def test_an_open_endpoint_asks_nobody_on_a_platform_with_tokens_and_only_it(way: str) -> None:
    async def scenario() -> None:
        async with town(required=True) as g:
            request, _ = WAYS[way]
            assert [await g.status(request.format(each)) for each in ("open", "closed", "plain")] == [200, 401, 401]
            elsewhere = await g.made("call:plain")
            assert await g.status(request.format("open"), elsewhere) == 200, "a token that says less takes nothing away"

    play(scenario)


def test_the_own_port_of_an_open_endpoint_is_open_and_the_rest_of_the_platform_is_not() -> None:
    async def scenario() -> None:
        async with town(required=True) as g:
            for path in ("/x", "/healthz", "/torpor/v1/status"):  # all of them the endpoint's own paths there
                assert await g.status(f"GET {path} HTTP/1.1\r\nHost: t\r\n", port=g.on.own_port) == 200
            view = "GET /torpor/v1/endpoints/open HTTP/1.1\r\nHost: t\r\n"
            remove = view.replace("GET", "DELETE")
            logs = "GET /torpor/v1/endpoints/open/logs HTTP/1.1\r\nHost: t\r\n"
            known = "GET /torpor/v1/known/open/schema.json HTTP/1.1\r\nHost: t\r\n"
            for request in (view, remove, logs, known, STATUS, call("nobody")):
                assert await g.status(request) == 401, request
            assert await g.status(call("nobody"), await g.made("call:open")) == 403

    play(scenario)


def test_an_authorization_of_the_callers_own_goes_on_and_torpors_token_does_not() -> None:
    async def scenario() -> None:
        async with town(required=False) as g:
            ours, theirs = f"Authorization: Bearer tp_{'x' * 43}", "Authorization: Bearer sk-theirs"
            given = (theirs, "Authorization: Basic dTpw", ours, f"X-Torpor-Token: tp_{'x' * 43}")
            assert [await g.status(call("open"), each) for each in given] == [200] * 4
            seen = [request.headers for request in g.on.upstream.requests]
            assert [each.get("authorization") for each in seen] == ["Bearer sk-theirs", "Basic dTpw", None, None]
            assert not any("x-torpor-token" in each for each in seen)

    play(scenario)


def test_the_door_stands_while_there_is_somebody_to_ask() -> None:
    async def scenario() -> None:
        async with town(required=False) as g:
            stands = []
            for change in (
                lambda: None,
                lambda: g.catalog.put(registered("closed", None)),
                lambda: varied(g, "plain", True),
                lambda: g.catalog.vary("plain", (), {}),
                lambda: g.catalog.put(registered("open", True)),
                lambda: g.catalog.terminate("open"),
                lambda: g.catalog.put(registered("open", True)),
                lambda: g.catalog.remove("open"),
            ):
                change()
                stands.append(g.on.proxy.door is not None)
            assert stands == [True, False, True, False, True, False, True, False]

    play(scenario)


def test_a_deploy_that_closes_an_endpoint_asks_of_connections_that_are_open_too() -> None:
    async def scenario() -> None:
        async with town(required=False) as g:
            line = await g.on.caller()
            statuses = []
            for access in (None, True, False):
                g.catalog.put(registered("plain", access))
                await line.send(f"{call('plain')}\r\n".encode())
                statuses.append((await line.message()).status)
            await line.close()
            assert statuses == [200, 401, 200]

    play(scenario)


@pytest.mark.parametrize("required", [True, False])
def test_of_a_variant_and_its_endpoint_the_stricter_counts(required: bool) -> None:
    platform = 401 if required else 200
    expected = {
        ("closed", True): 401, ("closed", None): 401, ("closed", False): 401,
        ("plain", True): 401, ("plain", None): platform, ("plain", False): platform,
        ("open", True): 401, ("open", None): platform, ("open", False): 200,
    }  # fmt: skip

    async def scenario() -> None:
        async with town(required) as g:
            found = {}
            for name, access in expected:
                varied(g, name, access)
                found[name, access] = await g.status(call(f"{name}~{CANARY}"))
            assert found == expected
            varied(g, "closed", None)
            by_name = f"GET /x HTTP/1.1\r\nHost: closed--{CANARY}.localhost\r\n"
            granted = await g.made("call:closed")
            assert [await g.status(by_name), await g.status(by_name, granted)] == [401, 200]

    play(scenario)


def test_off_the_loopback_address_an_endpoint_is_opened_only_where_the_owner_lets_it() -> None:
    async def scenario() -> None:
        async with town(required=True, opens=False) as g:
            assert [await g.status(call(name)) for name in ("open", "closed", "plain")] == [401] * 3
            assert await g.status("GET /x HTTP/1.1\r\nHost: t\r\n", port=g.on.own_port) == 401
            assert await g.status(call("open"), await g.made("call:open")) == 200

    play(scenario)


def test_what_an_endpoints_access_comes_to_is_told_where_it_is_not_what_was_asked_for() -> None:
    assert [effective(access, True) for access in (True, False, None)] == [True, False, None]
    assert [effective(access, False) for access in (True, False, None)] == [True, None, None]
    assert [len(notes(access, opens)) for opens in (True, False) for access in (True, False, None)] == [
        0,
        0,
        0,
        0,
        1,
        0,
    ]
    assert "open_endpoints" in notes(False, False)[0]


def test_refused_callers_are_counted_by_endpoint_and_names_that_are_none_are_not() -> None:
    async def scenario() -> None:
        async with town(required=True) as g:
            few = await g.made("call:plain")
            for request in (call("closed"), call("closed", "/healthz"), call("plain"), call("nobody"), STATUS):
                assert await g.status(request) == 401
            assert await g.status(call("closed"), few) == 403
            assert await g.status(call("plain"), few) == 200
            tallies = g.on.proxy.tallies
            assert {name: tally.barred for name, tally in tallies.endpoints.items()} == {"closed": 3, "plain": 1}
            assert dict(tallies.unmatched) == {401: 5, 403: 1}

    play(scenario)
