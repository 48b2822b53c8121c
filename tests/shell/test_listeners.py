"""Ports that cannot be had: told, shown, tried again, given up with their endpoint."""

from __future__ import annotations

import asyncio
import socket

import pytest

from router.proxy.limits import Limits
from router.proxy.proxy import Proxy
from router.shell.listeners import Listeners
from tests.shell.fakes.calls import FakeCalls
from tests.shell.fakes.wire import play, until
from torpor.errors import Conflict


def listeners(host: str = "127.0.0.1") -> Listeners:
    made = Listeners(host, retry_every=0.01)
    made.proxy = Proxy(FakeCalls("/nowhere.sock"), "/nowhere.sock", Limits())
    return made


def taken() -> socket.socket:
    """Somebody else's listener."""
    return socket.create_server(("127.0.0.1", 0))


def answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_something_else_has_is_a_conflict() -> None:
    async def scenario() -> None:
        with taken() as other:
            port = other.getsockname()[1]
            with pytest.raises(Conflict, match=rf"port {port} of 127\.0\.0\.1 cannot be had: .*in use") as raised:
                await listeners().open(port)
            assert len(raised.value.message.split("\n")) == 2

    play(scenario)


def test_an_address_that_is_not_this_machines_is_a_conflict_too() -> None:
    async def scenario() -> None:
        for host in ("192.0.2.1", "nowhere.invalid"):
            with pytest.raises(Conflict, match=f"of {host} cannot be had"):
                await listeners(host).open(0, main=True)

    play(scenario)


def test_a_port_that_was_taken_over_a_restart_is_shown_and_listens_when_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        made = listeners()
        with taken() as other:
            port = int(other.getsockname()[1])
            await made.reopen([port])
            assert f"port {port}" in caplog.text
            assert "it is tried again" in caplog.text
            fault = made.fault(port)
            assert fault is not None
            assert f"port {port} of 127.0.0.1 cannot be had" in fault
            retrying = asyncio.ensure_future(made.retry())
            await asyncio.sleep(0.05)
            assert made.fault(port) is not None
        await until(lambda: made.fault(port) is None)
        assert answers(port)
        assert made.fault(None) is None
        retrying.cancel()
        made.close_all()
        assert not answers(port)

    play(scenario)


def test_a_lacking_port_is_not_tried_again_when_its_endpoint_is_gone() -> None:
    async def scenario() -> None:
        made = listeners()
        with taken() as other:
            port = int(other.getsockname()[1])
            await made.reopen([port])
            retrying = asyncio.ensure_future(made.retry())
            made.close(port)
            assert made.fault(port) is None
        await asyncio.sleep(0.05)
        assert not answers(port)
        await made._try_again(port)  # one that was under way when the endpoint went
        assert not answers(port)
        retrying.cancel()

    play(scenario)


def test_who_keeps_a_port_for_a_listener_gives_it_up_when_that_opens() -> None:
    async def scenario() -> None:
        made = listeners()
        kept = taken()
        port = int(kept.getsockname()[1])
        made.let_go = lambda opened: kept.close() if opened == port else None
        assert await made.open(port) == port
        assert answers(port)
        made.close_all()

    play(scenario)
