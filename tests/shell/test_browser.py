"""The login of a command line through a browser, and the browser's own session, as their clocks run."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from router.api import browser, session
from router.api.app import answer
from router.api.browser import BrowserLogin
from router.api.session import LoginRoutes, Sessions
from router.core.catalog import Catalog
from router.shell.door import Door
from router.shell.tokens import Tokens
from tests.shell.fakes.calls import FakeCalls
from tests.shell.test_door import Kept
from torpor.errors import TorporError

OWN = {"Origin": "http://torpor"}
CODE = "/api/v1/auth/code"
TOKEN = "/api/v1/auth/token"


@dataclass
class Browsing:
    """The routes without the proxy in front of them: what it would tell of a cookie, `told` tells."""

    client: httpx.AsyncClient
    sessions: Sessions
    kept: Kept
    now: list[float]
    text: str = ""  # of the token of the last session

    async def code(self) -> str:
        return str((await self.client.get(CODE)).json()["code"])

    async def consent(self, code: str, told: dict[str, str]) -> int:
        return (
            await self.client.post("/api_tokens", data={"code": code, "token": self.text}, headers=OWN | told)
        ).status_code

    async def fetched(self, code: str) -> str | None:
        found = await self.client.get(TOKEN, params={"code": code})
        assert found.status_code in (200, 404)
        return str(found.json()["token"]) if found.status_code == 200 else None

    async def session(self, name: str, *scopes: str) -> dict[str, str]:
        token, self.text = await self.sessions.door.tokens.create(name, list(scopes), None)
        text = self.sessions.begin(token)
        return {"X-Torpor-Session": hashlib.sha256(text.encode()).hexdigest()}

    def holder(self, told: dict[str, str]) -> str | None:
        headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        found = self.sessions.holder(Request({"type": "http", "headers": headers}))
        return None if found is None else found.name


@asynccontextmanager
async def browsing(required: bool = True) -> AsyncIterator[Browsing]:
    kept, now = Kept(), [1000.0]
    tokens = Tokens(kept, lambda: now[0])
    door = Door(FakeCalls(""), Catalog(), tokens, required=required)
    sessions = Sessions(door, lambda: now[0])
    routes = [*LoginRoutes(sessions).routes(), *BrowserLogin(sessions, lambda: now[0]).routes()]

    async def told(request: Request, error: Exception) -> object:
        assert isinstance(error, TorporError)
        return answer(error)

    app = Starlette(routes=routes, exception_handlers={TorporError: told})  # type: ignore[dict-item]  # a narrower error
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://torpor") as client:
        yield Browsing(client, sessions, kept, now)


def test_a_code_is_good_for_five_minutes_and_so_is_what_nobody_fetched() -> None:
    async def scenario() -> None:
        async with browsing() as b:
            me = await b.session("me", "admin")
            late, unfetched = await b.code(), await b.code()
            assert await b.consent(unfetched, me) == 200
            b.now[0] += browser.LASTS - 1
            fresh = await b.code()
            b.now[0] += 1
            assert await b.consent(late, me) == 404
            assert await b.fetched(unfetched) is None
            assert await b.consent(fresh, me) == 200
            text = await b.fetched(fresh)
            assert text is not None
            token = b.sessions.door.tokens.known(hashlib.sha256(text.encode()).digest())
            assert token is not None
            assert (token.name, token.scopes) == (f"browser-{fresh[:8]}", ("api",))
            assert await b.fetched(fresh) is None

    asyncio.run(scenario())


def test_no_more_than_a_hundred_wait_for_a_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with browsing() as b:
            codes = [await b.code() for _ in range(browser.PENDING_MAX)]
            assert len(set(codes)) == browser.PENDING_MAX
            full = await b.client.get(CODE)
            assert (full.status_code, "100 logins wait" in full.text) == (503, True)
            b.now[0] += browser.LASTS
            assert (await b.client.get(CODE)).status_code == 200

    asyncio.run(scenario())


def test_only_who_may_make_such_a_token_consents() -> None:
    async def scenario() -> None:
        async with browsing() as b:
            code = await b.code()
            for told in ({}, {"X-Torpor-Session": "00"}, await b.session("caller", "call", "write_organization")):
                assert await b.consent(code, told) == 303
                assert (await b.client.get(f"/api_tokens?code={code}", headers=told)).status_code == 303
            assert await b.fetched(code) is None
            own = await b.session("api", "api")
            b.text, text = "another", b.text
            assert await b.consent(code, own) == 401, "a page of an endpoint has the cookie, and no token"
            b.text = text
            assert await b.consent(code, own) == 200

    asyncio.run(scenario())


def test_a_consent_that_could_not_be_kept_can_be_given_again() -> None:
    async def scenario() -> None:
        async with browsing() as b:
            me, code = await b.session("me", "admin"), await b.code()
            b.kept.full = True
            assert await b.consent(code, me) == 500
            assert await b.fetched(code) is None
            b.kept.full = False
            assert await b.consent(code, me) == 200
            assert await b.fetched(code) is not None

    asyncio.run(scenario())


def test_a_session_ends_with_its_time_its_token_and_the_oldest_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SESSIONS_MAX", 2)

    async def scenario() -> None:
        async with browsing() as b:
            first = await b.session("first", "admin")
            b.now[0] += session.LASTS
            assert b.holder(first) == "first"
            b.now[0] += 1
            assert b.holder(first) is None
            second, third = await b.session("second", "call"), await b.session("third", "call")
            await b.sessions.door.tokens.revoke("second")
            assert [b.holder(each) for each in (second, third)] == [None, "third"]
            for name in ("fourth", "fifth"):
                await b.session(name, "call")
            assert b.holder(third) is None

    asyncio.run(scenario())


def test_on_an_open_platform_nobody_has_to_log_in() -> None:
    async def scenario() -> None:
        async with browsing(required=False) as b:
            code = await b.code()
            page = await b.client.get(f"/api_tokens?code={code}")
            assert (page.status_code, "From the first one on everybody does" in page.text) == (200, True)
            assert await b.consent(code, {}) == 200
            assert b.sessions.door.asks
            assert await b.consent(await b.code(), {}) == 303

    asyncio.run(scenario())


def test_a_form_of_another_page_and_what_is_none_are_refused() -> None:
    async def scenario() -> None:
        async with browsing() as b:
            sent = {"token": "x"}
            for origin in ({}, {"Origin": "null"}, {"Origin": "http://torpor:81"}, {"Origin": "http://["}):
                assert (await b.client.post("/login", data=sent, headers=origin)).status_code == 403
            for body, status in ((b"%zz", 400), (b"\xff=1", 400), (b"a" * (session.FORM_MAX + 1), 413), (b"", 401)):
                assert (await b.client.post("/login", content=body, headers=OWN)).status_code == status

    asyncio.run(scenario())
