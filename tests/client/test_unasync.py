"""The sync client is the async one without `async`."""

from __future__ import annotations

import inspect

import pytest

from tests.client.unasync import SYNC, generated
from torpor import AsyncClient, Client


def test_the_sync_client_is_as_generated() -> None:
    assert SYNC.read_text() == generated(), "run: python -m tests.client.unasync"


@pytest.mark.parametrize("name", ["deploy", "list", "get", "wake", "sleep", "delete", "logs", "status", "endpoint"])
def test_both_clients_have_what_the_design_names(name: str) -> None:
    sync, asynchronous = getattr(Client, name), getattr(AsyncClient, name)
    assert sync.__doc__ == asynchronous.__doc__
    assert list(inspect.signature(sync).parameters) == list(inspect.signature(asynchronous).parameters)
