"""Removals: whole or not at all, whoever leaves, and when."""

from __future__ import annotations

import anyio
import pytest

from tests.shell.test_deploys import House, play, until
from torpor.errors import (
    Conflict,
    EndpointNotFound,
    InternalError,
)


def test_a_removed_endpoint_leaves_nothing_and_its_name_begins_afresh() -> None:
    async def scenario(house: House) -> None:
        before = house.state()
        await house.deploy(port=7400)
        await house.deploys.remove("e")
        await house.same(before)
        assert house.forgotten == ["e"]
        with pytest.raises(EndpointNotFound):
            await house.deploys.remove("e")
        await house.deploy("b:2")
        assert house.catalog.endpoints["e"].revision == 1

    play(scenario)


def test_a_removal_is_seen_through_when_its_caller_leaves_while_calls_drain() -> None:
    async def scenario(house: House) -> None:
        before = house.state()
        await house.deploy(port=7400)
        call = house.stage.want()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.deploys.remove, "e")
            await until(lambda: "e" not in house.catalog.endpoints)
            with pytest.raises(Conflict):
                await house.deploy()
            tasks.cancel_scope.cancel()
            call.settle()
        await house.same(before)
        assert house.forgotten == ["e"]

    play(scenario)


def test_a_removal_that_cannot_be_written_changes_nothing() -> None:
    async def scenario(house: House) -> None:
        await house.deploy(port=7400)
        before = house.state()
        house.records.gate.error = InternalError("what exists cannot be written down: disk full\nlook at the disk")
        with pytest.raises(InternalError):
            await house.deploys.remove("e")
        await house.same(before)
        assert house.stage.want().lease is not None

    play(scenario)
