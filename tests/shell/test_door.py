"""Who is let in: before a body is read, before a call is parked, and without a token ever being told on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from router.core.catalog import Catalog, Registered
from router.core.settings import Settings
from router.core.tokens import Token
from router.shell.door import Door
from router.shell.tokens import Tokens
from tests.shell.fakes.wire import Stage, play, stage
from torpor.errors import BadRequest, Conflict, InternalError, NotFound

CALL = "GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\n"
STATUS = "GET /torpor/v1/status HTTP/1.1\r\nHost: t\r\n"


class Kept:
    """A store of tokens in memory; `full`: it writes nothing more."""

    def __init__(self) -> None:
        self.rows: dict[str, Token] = {}
        self.used: dict[str, float] = {}
        self.full = False

    def tokens(self) -> list[Token]:
        return list(self.rows.values())

    async def put_token(self, token: Token) -> None:
        if self.full:
            raise InternalError("the disk is full\nmake room")
        self.rows[token.id] = token

    async def use_tokens(self, used: dict[str, float]) -> None:
        self.used |= used


@dataclass
class Guarded:
    """A proxy with a door, whose clock is `now`."""

    on: Stage
    catalog: Catalog
    door: Door
    tokens: Tokens
    kept: Kept
    now: list[float]

    async def status(self, request: str, *headers: str, port: int | None = None) -> int:
        line = await self.on.caller(port)
        try:
            await line.send("".join((request, *(f"{header}\r\n" for header in headers), "\r\n")).encode())
            return (await line.message()).status
        finally:
            await line.close()

    async def made(self, *scopes: str, expires_in: float | None = None) -> str:
        """The header of a new token."""
        name = f"t{len(self.tokens.all())}"
        text = (await self.tokens.create(name, list(scopes), expires_in))[1]
        self.door.look()
        return f"Authorization: Bearer {text}"


@asynccontextmanager
async def guarded(required: bool = True, never: bool = False, opens: bool = True) -> AsyncIterator[Guarded]:
    async with stage() as on:
        kept, now = Kept(), [1000.0]
        tokens = Tokens(kept, lambda: now[0])
        catalog = Catalog()
        catalog.put(Registered("e", 1, "b:1", {}, Settings(port=7301), 1.0))
        door = Door(on.calls, catalog, tokens, required=required, never=never, opens=opens)
        door.stand(on.proxy)
        yield Guarded(on, catalog, door, tokens, kept, now)


def test_a_call_without_a_token_is_refused_before_its_body_is_read_and_before_it_is_parked() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            line = await g.on.caller()
            await line.send(
                b"POST /endpoints/e/x HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            )
            answer = await line.message()
            assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="torpor"')
            assert b'"code": "unauthorized"' in answer.body
            assert await line.ended()
            await line.close()
            assert (g.on.calls.wanted, g.on.upstream.requests, g.on.control.requests) == ([], [], [])

    play(scenario)


def test_each_way_in_asks_and_a_token_opens_what_its_scope_names() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            ways = {
                "call": (CALL, None),
                "own port": ("GET /x HTTP/1.1\r\nHost: t\r\n", g.on.own_port),
                "quiet": ("GET /endpoints/e/healthz HTTP/1.1\r\nHost: t\r\n", None),
                "by host": ("GET /healthz HTTP/1.1\r\nHost: e.localhost\r\n", None),
                "view": ("GET /torpor/v1/endpoints/e HTTP/1.1\r\nHost: t\r\n", None),
                "control": (STATUS, None),
                "index": ("GET / HTTP/1.1\r\nHost: t\r\n", None),
                "log": ("GET /torpor/v1/endpoints/e%2Flogs HTTP/1.1\r\nHost: t\r\n", None),
            }
            tokens = [await g.made(*scopes) for scopes in (["call:e"], ["call"], ["call:other"], ["admin"])]
            found = {
                name: [await g.status(way, *given, port=port) for given in ((), *((each,) for each in tokens))]
                for name, (way, port) in ways.items()
            }
            callers, admins = [401, 200, 200, 403, 200], [401, 403, 403, 403, 200]
            assert found == {
                **dict.fromkeys(("call", "own port", "quiet", "by host", "view"), callers),
                **dict.fromkeys(("control", "log"), admins),
                "index": [200, *admins[1:]],  # without a token it leads to a page
            }

    play(scenario)


def test_the_routers_own_health_is_open() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            for path in ("/healthz", "/livez", "/readyz"):
                assert await g.status(f"GET {path} HTTP/1.1\r\nHost: t\r\n") == 200
            assert await g.status("GET /healthz HTTP/1.1\r\nHost: t\r\n", port=g.on.own_port) == 401

    play(scenario)


def test_which_endpoints_there_are_is_for_those_who_may_call_them() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            request = "GET /endpoints/nobody/x HTTP/1.1\r\nHost: t\r\n"
            few, all_ = await g.made("call:other"), await g.made("call")
            assert [await g.status(request, *given) for given in ((), (few,), (all_,))] == [401, 403, 404]

    play(scenario)


def test_a_refusal_names_the_scope_that_is_lacking() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            header = await g.made("call:other")
            answer = await g.on.ask(f"{CALL}{header}\r\n\r\n".encode())
            assert b"the scope call:e" in answer.body
            assert header.rpartition(" ")[2].encode() not in answer.body

    play(scenario)


def test_our_token_stays_here_and_another_authorization_goes_on() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            header = await g.made("call")
            own = f"X-Torpor-Token: {header.rpartition(' ')[2]}"
            theirs = "Authorization: Bearer tp_live_of_the_service"
            given = ((header,), (header.replace("Bearer", "bEARER  "),), (own, theirs), (own,))
            assert [await g.status(CALL, *each) for each in given] == [200] * 4
            assert await g.status(CALL, theirs) == 401
            seen = [request.headers for request in g.on.upstream.requests]
            assert [each.get("authorization") for each in seen] == [None, None, theirs.partition(" ")[2], None]
            assert not any("x-torpor-token" in each for each in seen)

    play(scenario)


def test_our_token_stays_here_also_where_none_is_asked_for() -> None:
    async def scenario() -> None:
        async with stage() as on:
            token = "tp_" + "a" * 43
            await on.ask(f"{CALL}Authorization: Bearer {token}\r\n\r\n".encode())
            await on.ask(f"{CALL}Authorization: Basic dTpw\r\n\r\n".encode())
            assert [each.headers.get("authorization") for each in on.upstream.requests] == [None, "Basic dTpw"]

    play(scenario)


def test_two_tokens_in_one_request_are_none() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            first, second = await g.made("admin"), await g.made("admin")
            assert await g.status(CALL, first, second) == 401

    play(scenario)


def test_a_token_ends_for_connections_that_are_open_too() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            short, kept = await g.made("call", expires_in=60.0), await g.made("call")
            line = await g.on.caller()
            statuses: list[int] = []
            for header, step in ((short, 0.0), (short, 60.0), (kept, 0.0), (kept, 0.0)):
                g.now[0] += step
                if len(statuses) == 3:
                    await g.tokens.revoke("t1")
                await line.send(f"{CALL}{header}\r\n\r\n".encode())
                statuses.append((await line.message()).status)
            assert statuses == [200, 401, 200, 401]
            await line.close()

    play(scenario)


def test_the_first_token_closes_an_open_door_and_its_end_does_not_open_it() -> None:
    async def scenario() -> None:
        async with guarded(required=False) as g:
            assert (await g.status(CALL), g.on.proxy.door) == (200, None)
            header = await g.made("call")
            assert [await g.status(CALL), await g.status(CALL, header)] == [401, 200]
            await g.tokens.revoke("t0")
            g.door.look()
            assert [await g.status(CALL), await g.status(CALL, header)] == [401, 401]

    play(scenario)


def test_a_door_that_never_asks_lets_everybody_in() -> None:
    async def scenario() -> None:
        async with guarded(required=False, never=True) as g:
            await g.made("call")
            assert await g.status(CALL) == 200

    play(scenario)


def test_a_token_in_a_broken_request_is_not_told_back() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            token = (await g.made("admin")).rpartition(" ")[2]
            for broken in (f"{CALL}Authorization : Bearer {token}\r\n\r\n", f"{token} / HTTP/1.1\r\n\r\n"):
                answer = await g.on.ask(broken.encode())
                assert answer.status == 400
                assert token[:10].encode() not in answer.body
                assert b"tp_..." in answer.body

    play(scenario)


def test_an_upgrade_asks_before_it_is_tunnelled() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            upgrade = f"{CALL}Connection: Upgrade\r\nUpgrade: websocket\r\n"
            assert await g.status(upgrade) == 401
            assert not g.on.upstream.requests
            assert await g.status(upgrade, await g.made("call:e")) == 200
            assert g.on.upstream.requests[0].headers["upgrade"] == "websocket"

    play(scenario)


def test_the_store_has_the_digest_and_the_last_use_and_never_the_text() -> None:
    async def scenario() -> None:
        kept, now = Kept(), [5.0]
        tokens = Tokens(kept, lambda: now[0])
        token, text = await tokens.create("ci", ["call", "call"], 10.0)
        assert text not in repr(kept.rows)
        assert (token.scopes, token.expires_at, len(text)) == (("call",), 15.0, 46)
        now[0] = 7.0
        assert tokens.known(token.digest) == token
        assert tokens.known(token.digest[:8] + bytes(24)) is None
        await tokens.write_used()
        assert kept.used == {token.id: 7.0}
        assert [each.last_used_at for each in tokens.all()] == [7.0]

    asyncio.run(scenario())


def test_the_token_of_the_bentoml_command_line_is_ours_and_its_refusals_are_sentences() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            text = (await g.made("read_cluster")).rpartition(" ")[2]
            listed = f"GET /api/v2/deployments HTTP/1.1\r\nHost: t\r\nX-YATAI-API-TOKEN: {text}\r\n"
            forged = f"{listed}X-Torpor-Holder: 00\r\n\r\n"
            assert (await g.on.ask(forged.encode())).status == 200
            seen = g.on.control.requests[0].headers
            assert "x-yatai-api-token" not in seen
            assert seen["x-torpor-holder"] == hashlib.sha256(text.encode()).hexdigest()
            forbidden = await g.on.ask(f"{listed.replace('GET', 'POST')}\r\n".encode())
            assert (forbidden.status, forbidden.headers["content-type"]) == (403, "text/plain; charset=utf-8")
            assert forbidden.body.startswith(b"the token 't0' may not do this: its scope is read_cluster; use one")
            unknown = await g.on.ask(f"{listed.replace(text, 'wrong')}\r\n".encode())
            assert (unknown.status, unknown.body[:28]) == (401, b"the token is unknown, revoke")
            elsewhere = await g.on.ask(f"{listed.replace('/api/v2', '/torpor/v1')}\r\n".encode())
            assert (elsewhere.status, elsewhere.headers["content-type"]) == (403, "application/json")

    play(scenario)


def test_an_endpoint_has_paths_like_the_apis_and_sees_no_token() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            text = (await g.made("call:e")).rpartition(" ")[2]
            own = "GET /api/v1/x HTTP/1.1\r\nHost: t\r\n"
            assert await g.status(own, f"X-YATAI-API-TOKEN: {text}", port=g.on.own_port) == 200
            assert not {"x-yatai-api-token", "x-torpor-holder"} & set(g.on.upstream.requests[0].headers)
            line = await g.on.caller(g.on.own_port)
            await line.send(f"{own}\r\n".encode())
            assert (await line.message()).headers["content-type"] == "application/json"
            await line.close()

    play(scenario)


def test_a_browsers_session_is_for_the_control_plane_alone() -> None:
    async def scenario() -> None:
        async with stage() as on:
            session = "torpor_session=abc"
            cookies = ("a=1", session, f"a=1; {session}", f"{session};b=2", f"a=1; {session} ; b=2", f"x{session}")
            for path in ("/endpoints/e/x", "/deployments/e"):
                for each in cookies:
                    asked = f"GET {path} HTTP/1.1\r\nHost: t\r\nX-Torpor-Session: 00\r\nCookie: {each}\r\n\r\n"
                    assert (await on.ask(asked.encode())).status == 200
            two = f"GET /endpoints/e/x HTTP/1.1\r\nHost: t\r\nCookie: {session}; a=1\r\nCookie: {session}\r\n\r\n"
            assert (await on.ask(two.encode())).status == 200
            calls, pages = on.upstream.requests, on.control.requests
            passed = ["a=1", None, "a=1", "b=2", "a=1; b=2", f"x{session}"]
            assert [each.headers.get("cookie") for each in calls] == [*passed, "a=1"]
            assert [each.headers.get("cookie") for each in pages] == passed
            assert not any("x-torpor-session" in each.headers for each in calls)
            digest = hashlib.sha256(b"abc").hexdigest()
            told = [each.headers.get("x-torpor-session") for each in pages]
            assert told == [None, digest, digest, digest, digest, None]

    play(scenario)


def test_pages_and_the_browsers_login_ask_by_themselves() -> None:
    async def scenario() -> None:
        async with guarded() as g:
            paths = ("/login", "/api_tokens?code=x", "/deployments/e", "/api/v1/auth/code", "/api/v1/auth/token?code=x")
            assert [await g.status(f"GET {path} HTTP/1.1\r\nHost: t\r\n") for path in paths] == [200] * 5
            assert await g.status("GET /api/v1/auth/current HTTP/1.1\r\nHost: t\r\n") == 401

    play(scenario)


def test_a_name_is_one_tokens_until_it_is_revoked() -> None:
    async def scenario() -> None:
        tokens = Tokens(Kept(), lambda: 1.0)
        first, _ = await tokens.create("ci", ["call"], None)
        with pytest.raises(Conflict, match="a token 'ci' already"):
            await tokens.create("ci", ["admin"], None)
        await tokens.revoke("ci")
        second, _ = await tokens.create("ci", ["admin"], None)
        assert [await tokens.revoke(first.id), (await tokens.revoke("ci")).id] == [tokens.all()[0], second.id]
        with pytest.raises(NotFound, match="'ci'"):
            await tokens.revoke("ci")
        for expires_in in (0.0, -1.0, 1e12):
            with pytest.raises(BadRequest, match="cannot expire in"):
                await tokens.create("x", ["call"], expires_in)

    asyncio.run(scenario())


def test_a_full_disk_makes_no_token_and_keeps_none_alive() -> None:
    async def scenario() -> None:
        kept = Kept()
        tokens = Tokens(kept, lambda: 1.0)
        token, _ = await tokens.create("ci", ["call"], None)
        kept.full = True
        with pytest.raises(InternalError):
            await tokens.create("other", ["call"], None)
        with pytest.raises(InternalError):
            await tokens.revoke("ci")
        assert [each.name for each in tokens.all()] == ["ci"]
        assert tokens.known(token.digest) is None

    asyncio.run(scenario())
