"""The router's end of what forks: whatever comes through its socket, the router goes on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from router.launch.forker import AT_ONCE, Forker, packets, pair
from router.launch.template import Template
from tests.shell.fakes.launchers import Play
from torpor.errors import InternalError
from torpor.host import packet


@pytest.mark.parametrize(
    "body",
    [b"no packet", b"[]", b"5", b"null", b'"text"', b'{"large": 5}', b'{"large": []}', b'{"large": null}', b"\xff\xfe"],
)
def test_what_is_no_packet_ends_the_line(body: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        packet.send(theirs, {"ev": "first"})
        theirs.send(body)
        assert packets(ours) == ([{"ev": "first"}], True)


@pytest.mark.parametrize("told", [{"large": 1 << 40}, {"large": "7"}, {"large": -1}])
def test_a_body_that_is_none_is_not_read_and_its_descriptor_is_closed(told: dict[str, Any]) -> None:
    ours, theirs = pair()
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        reads, writes = os.pipe()
        socket.send_fds(theirs, [json.dumps(told).encode()], [reads])
        os.close(reads)
        os.close(writes)
        assert packets(ours) == ([], True)
        assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_fills_its_socket_for_ever_does_not_keep_the_router_from_others() -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.setblocking(False)
        sent = 0
        while sent <= AT_ONCE:
            packet.send(theirs, {"n": sent})
            sent += 1
        first, ended = packets(ours)
        assert ([each["n"] for each in first], ended) == (list(range(AT_ONCE)), False)
        assert packets(ours) == ([{"n": AT_ONCE}], False)


def test_one_that_is_hung_up_on_answers_nobody_any_more(play: Play) -> None:
    async def scenario() -> None:
        ours, theirs = pair()
        with theirs:
            parent = Forker(Path("/nonexistent"), lambda *any: None, lambda any: None)
            template = Template("t", parent, ours, Path("/nonexistent"), lambda *any: None, lambda any: None)
            loading = asyncio.ensure_future(template.load())
            await asyncio.sleep(0)
            template.end()
            with pytest.raises(InternalError, match="is gone"):
                await loading

    play(scenario())
