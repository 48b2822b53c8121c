"""Going back, taking off the air and starting again: whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from router.core.catalog import Registered
from tests.shell.test_deploys import (
    House,
    environment_fails,
    play,
    preparation_fails,
    until,
    write_fails,
)
from torpor.errors import Conflict, EndpointNotFound, InternalError, InvalidService, NotFound, StartFailed


def live(house: House, name: str = "e") -> tuple[int, str]:
    entry = house.catalog.endpoints[name]
    assert house.records.rows[name].revision == entry.revision, "what is written is what is live"
    assert house.engine.schedule.lines[name].revision == entry.revision
    return entry.revision, entry.bento


def test_a_rollback_goes_back_step_by_step_and_makes_no_row() -> None:
    async def scenario(house: House) -> None:
        for bento in ("b:1", "b:2", "b:3"):
            await house.deploy(bento)
        house.told.clear()
        await house.deploys.rollback("e", None, house.told.append)
        assert live(house) == (2, "b:2")
        assert [event.get("detail") for event in house.told] == ["b:2", "numpy", "revision 2"]
        call = house.stage.want()
        assert call.lease is not None
        assert call.lease.replica.startswith("e-2-")
        await house.deploys.rollback("e", None, house.told.append)
        assert live(house) == (1, "b:1")
        assert len(house.records.kept) == 3
        await house.deploy("b:2")
        assert live(house) == (4, "b:2"), "numbers are never given twice"

    play(scenario)


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (None, NotFound, "nothing was live at 'e' before its revision 1\nsee `torpor history e`"),
        (1, Conflict, "revision 1 of 'e' is live already"),
        (7, NotFound, "'e' has no revision 7"),
    ],
)
def test_a_rollback_to_nowhere_is_refused_and_changes_nothing(
    number: int | None, error: type[Exception], says: str
) -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        house.told.clear()
        before = house.state()
        with pytest.raises(error, match=says):
            await house.deploys.rollback("e", number, house.told.append)
        assert house.told == []
        await house.same(before)
        with pytest.raises(EndpointNotFound):
            await house.deploys.rollback("nobody", None, house.told.append)

    play(scenario)


def bento_is_gone(house: House) -> None:
    del house.packages.known["b:1"]


def it_cannot_start(house: House) -> None:
    house.packages.known["b:1"] = house.packages.known["broken:1"]


FAULTS = [environment_fails, preparation_fails, write_fails, bento_is_gone, it_cannot_start]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_a_rollback_that_fails_anywhere_leaves_everything_as_it_was(fault: Callable[[House], None]) -> None:
    async def scenario(house: House) -> None:
        await house.deploy("b:1")
        await house.deploy("b:2")
        await until(lambda: len(house.launcher.alive) == 1)
        before = house.state()
        fault(house)
        with pytest.raises((InvalidService, InternalError, NotFound, StartFailed)):
            await house.deploys.rollback("e", None, house.told.append)
        await house.same(before)
        assert house.stage.want().lease is not None

    play(scenario)


def test_what_was_counted_is_the_endpoints_and_not_a_revisions() -> None:
    async def scenario(house: House) -> None:
        await house.deploy("b:1")
        await house.deploy("b:2")
        counted(house, calls=70)
        house.records.kept["e", 1] = changed(house.records.kept["e", 1], calls=75)  # as the row tells in the meantime
        await house.deploys.rollback("e", None, house.told.append)
        assert house.catalog.endpoints["e"].calls == 70

    play(scenario)


def test_a_terminated_endpoint_is_kept_off_the_air_with_its_port_and_starts_again() -> None:
    async def scenario(house: House) -> None:
        await house.deploy(port=7400)
        house.stage.want().settle()
        await house.deploys.terminate("e")
        await house.deploys.terminate("e")
        assert (house.catalog.endpoints, house.catalog.variants, house.engine.schedule.lines) == ({}, {}, {})
        assert (house.records.terminated, house.ports.listening) == ({"e"}, {7400})
        kept = house.catalog.known("e")
        assert (kept.revision, kept.terminated, kept.calls) == (1, True, 1)
        assert kept.last_call_at is not None
        with pytest.raises(EndpointNotFound, match="'e' is terminated"):
            house.catalog.resolve(b"/hi", b"h", 7400)
        await house.deploys.start("e", house.told.append)
        assert live(house) == (1, "b:1")
        assert (house.records.terminated, house.catalog.terminated) == (set(), {})
        assert (house.catalog.endpoints["e"].calls, house.stage.want().lease is not None) == (1, True)
        house.told.clear()
        await house.deploys.start("e", house.told.append)
        assert house.told == [], "one that is there stays as it is"

    play(scenario)


def test_a_start_that_fails_leaves_the_endpoint_terminated() -> None:
    async def scenario(house: House) -> None:
        await house.deploy(port=7400)
        await house.deploys.terminate("e")
        before = house.state()
        house.packages.known["b:1"] = house.packages.known["broken:1"]
        with pytest.raises(StartFailed):
            await house.deploys.start("e", house.told.append)
        await house.same(before)
        assert house.forgotten == []

    play(scenario)


def test_a_terminated_endpoint_can_be_deployed_rolled_back_and_removed() -> None:
    async def scenario(house: House) -> None:
        await house.deploy("b:1")
        await house.deploy("b:2")
        await house.deploys.terminate("e")
        await house.deploys.rollback("e", None, house.told.append)
        assert live(house) == (1, "b:1")
        await house.deploys.terminate("e")
        await house.deploy("b:3")
        assert live(house) == (3, "b:3")
        await house.deploys.terminate("e")
        await house.deploys.remove("e")
        assert (house.records.rows, house.catalog.terminated, house.forgotten) == ({}, {}, ["e"])

    play(scenario)


def test_a_termination_that_cannot_be_written_changes_nothing() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        before = house.state()
        write_fails(house)
        with pytest.raises(InternalError):
            await house.deploys.terminate("e")
        await house.same(before)

    play(scenario)


def changed(entry: Registered, **values: Any) -> Registered:
    return type(entry)(**{**{name: getattr(entry, name) for name in entry.__slots__}, **values})


def counted(house: House, **counts: Any) -> None:
    house.catalog.put(changed(house.catalog.endpoints["e"], **counts))
