"""What the engine remembers of addresses holds only as long as the catalogue does."""

from __future__ import annotations

import pytest

from router.core.catalog import Registered
from router.core.settings import Settings
from router.proxy.calls import Target
from tests.shell.fakes.stage import Stage, play
from torpor.errors import EndpointNotFound

PATH, HOST = b"/endpoints/e/predict", b"t"


def registered(name: str, port: int | None = None) -> Registered:
    return Registered(name, 1, "b:1", {}, Settings(port=port), 0.0)


def test_a_removed_endpoint_is_unknown_from_the_next_call_on() -> None:
    async def scenario(stage: Stage) -> None:
        stage.catalog.put(registered("e"))
        assert (
            stage.engine.resolve(PATH, HOST, None) == stage.engine.resolve(PATH, HOST, None) == Target("e", b"/predict")
        )
        stage.catalog.remove("e")
        for _ in range(2):
            with pytest.raises(EndpointNotFound):
                stage.engine.resolve(PATH, HOST, None)
        stage.catalog.put(registered("e"))
        assert stage.engine.resolve(PATH, HOST, None) == Target("e", b"/predict")

    play(scenario)


def test_a_port_belongs_to_its_new_endpoint_from_the_next_call_on() -> None:
    async def scenario(stage: Stage) -> None:
        stage.catalog.put(registered("old", 8001))
        assert stage.engine.resolve(b"/x", HOST, 8001) == Target("old", b"/x")
        stage.catalog.put(registered("old"))
        stage.catalog.put(registered("new", 8001))
        assert stage.engine.resolve(b"/x", HOST, 8001) == Target("new", b"/x")

    play(scenario)


def test_more_addresses_than_are_remembered_are_resolved_all_the_same() -> None:
    async def scenario(stage: Stage) -> None:
        stage.catalog.put(registered("e"))
        for serial in range(5000):
            asked = b"/endpoints/e/%d" % serial
            assert stage.engine.resolve(asked, HOST, None) == Target("e", b"/%d" % serial)
        assert stage.engine.resolve(b"/endpoints/e/" + b"x" * 4000, HOST, None) == Target("e", b"/" + b"x" * 4000)
        assert stage.engine.resolve(PATH, HOST, None) == Target("e", b"/predict")

    play(scenario)
