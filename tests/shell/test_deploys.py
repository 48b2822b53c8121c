"""Deploys and removals: whole or not at all, whoever fails or leaves, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from router.core.catalog import Learned
from router.core.settings import Settings
from router.shell.deploys import Deploys
from router.shell.request import Needs, Request
from tests.shell.fakes.owned import FakePackages, FakePorts, FakeRecords
from tests.shell.fakes.stage import Stage, beside_an_engine
from torpor.errors import (
    BadRequest,
    Conflict,
    InternalError,
    InvalidService,
    NotFound,
    StartFailed,
    StartTimeout,
)

PATIENCE = 20.0  # seconds until a scenario that hangs is a failure


class House:
    """Deploys over fakes. `b:1` to `b:3` are good bentos, `broken:1` fails when it is started."""

    def __init__(self, stage: Stage) -> None:
        self.engine, self.launcher, self.catalog = stage.engine, stage.launcher, stage.catalog
        self.stage = stage
        self.records, self.packages, self.ports = FakeRecords(), FakePackages(), FakePorts()
        for tag, kind in (("b:1", "Good"), ("b:2", "Good"), ("b:3", "Good"), ("broken:1", "Broken")):
            self.packages.known[tag] = Needs(Path("/src"), Path("/bento"), f"service:{kind}", ("numpy",))
        self.forgotten: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.deploys = Deploys(
            self.engine,
            self.catalog,
            self.records,
            self.packages,
            self.ports,
            self.forgotten.append,
            lambda pid: 7 << 20,
        )
        stage.engine.efforts.plan_of = self.deploys.plan

    async def deploy(self, bento: str = "b:1", name: str = "e", env: dict[str, str] | None = None, **rest: Any) -> None:
        await self.deploys.deploy(Request(name, bento, env or {}, Settings(**rest)), self.told.append)

    def state(self) -> dict[str, Any]:
        """Everything that a deploy may change."""
        lines = self.engine.schedule.lines
        return {
            "catalog": dict(self.catalog.endpoints),
            "beside": dict(self.catalog.beside),
            "variants": dict(self.catalog.variants),
            "terminated": dict(self.catalog.terminated),
            "ports of endpoints": {port: self.catalog._ports[port] for port in sorted(self.catalog._ports)},
            "records": dict(self.records.rows),
            "pointers": (dict(self.records.variants), set(self.records.terminated), dict(self.records.past)),
            "listening": set(self.ports.listening),
            "live": {name: (line.revision, line.settings) for name, line in lines.items()},
            "running": sorted(r.revision for r in self.engine.schedule.replicas.values()),
        }

    async def same(self, expected: dict[str, Any]) -> None:
        """The state is this one again; a trial that was given up takes a moment to end."""
        with anyio.move_on_after(2):
            await until(lambda: self.state() == expected)
        assert self.state() == expected
        assert self.deploys._changing == set()


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop run until something holds; `play` bounds it."""
    while not true():  # noqa: ASYNC110 - what is waited for is another party's plain state
        await anyio.sleep(0.001)


def play(scenario: Callable[[House], Awaitable[None]]) -> None:
    """Under asyncio: the checks run in a thread, for which a mock clock would not wait."""

    async def main(stage: Stage) -> None:
        await scenario(House(stage))

    anyio.run(beside_an_engine, main, PATIENCE)


def test_a_deploy_tells_its_phases_and_is_live_when_it_returns() -> None:
    async def scenario(house: House) -> None:
        house.packages.lines = ("Resolved 2 packages", "Installed 2 packages")
        await house.deploy(env={"A": "1"}, idle_after=7.0)
        assert house.told == [
            {"event": "phase", "phase": "checked", "detail": "b:1"},
            {"event": "phase", "phase": "preparing environment", "detail": "numpy"},
            {"event": "log", "line": "Resolved 2 packages"},
            {"event": "log", "line": "Installed 2 packages"},
            {"event": "phase", "phase": "starting", "detail": "revision 1"},
        ]
        entry = house.catalog.endpoints["e"]
        assert house.records.rows == {"e": entry}
        assert (entry.revision, entry.bento, entry.env, entry.settings.idle_after) == (1, "b:1", {"A": "1"}, 7.0)
        assert entry.learned == Learned(("json",), {"name": "Good"}, {"memory": 7 << 20}, {"fork": 0.01})
        assert house.launcher.prepared[-1].modules == ("json",), "the first cold call finds them imported"
        call = house.stage.want()
        assert call.lease is not None, "the trial's replica answers"
        assert call.lease.cold is False

    play(scenario)


def test_the_next_revision_keeps_when_it_was_made_and_what_was_counted() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        first = house.catalog.endpoints["e"]
        counted = type(first)(**{**fields(first), "calls": 70, "cold_starts": 7, "last_call_at": 5.0})
        house.catalog.put(counted)
        await house.deploy("b:2")
        second = house.catalog.endpoints["e"]
        assert (second.revision, second.bento, second.created_at) == (2, "b:2", first.created_at)
        assert (second.calls, second.cold_starts, second.last_call_at) == (70, 7, 5.0)

    play(scenario)


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        ({"name": "No_Name"}, BadRequest, "'No_Name' cannot be an endpoint's name"),
        ({"name": "-a"}, BadRequest, "letter or digit at both ends"),
        ({"name": "a" * 64}, BadRequest, "1 to 63"),
        ({"bento": "nobody:1"}, NotFound, "bento nobody:1 is not here"),
        ({"bento": "needy:1"}, BadRequest, "--env TOKEN=..."),
        ({"gpu": 1, "launcher": "container"}, BadRequest, "gpu = 1, but this machine has 0 GPUs"),
        ({"port": 7400}, Conflict, "port 7400 belongs to endpoint 'other'"),
    ],
)
def test_what_is_wrong_at_once_is_raised_before_anything_is_told(
    request_: dict[str, Any], error: type[Exception], says: str
) -> None:
    async def scenario(house: House) -> None:
        await house.deploy(name="other", port=7400)
        house.packages.known["needy:1"] = Needs(Path("/src"), Path("/b"), "service:Good", required_env=("TOKEN", "KEY"))
        house.told.clear()
        before = house.state()
        with pytest.raises(error, match=says):
            await house.deploy(**request_)
        assert house.told == []
        await house.same(before)

    play(scenario)


@pytest.mark.parametrize("deployed_before", [False, True])
def test_a_trial_that_fails_leaves_the_previous_revision_or_nothing(deployed_before: bool) -> None:
    async def scenario(house: House) -> None:
        if deployed_before:
            await house.deploy(port=7400)
        before = house.state()
        with pytest.raises(StartFailed, match="ZeroDivisionError") as raised:
            await house.deploy("broken:1", port=7401)
        assert raised.value.detail == {"log": ["    1 / 0"]}
        assert ("torpor logs e" in raised.value.message) == deployed_before
        await house.same(before)
        assert house.forgotten == ([] if deployed_before else ["e"])
        if deployed_before:
            assert house.stage.want().lease is not None
        await house.deploy("b:3")
        assert house.catalog.endpoints["e"].revision == (2 if deployed_before else 1)

    play(scenario)


def environment_fails(house: House) -> None:
    house.packages.gate.error = InvalidService("the bento's packages cannot be installed: no such package\nmend it")


def preparation_fails(house: House) -> None:
    house.launcher.unprepared = InternalError("the fork-server is gone\ntry again")


def port_is_taken(house: House) -> None:
    house.ports.taken.add(7401)


def write_fails(house: House) -> None:
    house.records.gate.error = InternalError("what exists cannot be written down: disk full\nlook at the disk")


FAULTS = [environment_fails, preparation_fails, port_is_taken, write_fails]


@pytest.mark.parametrize("deployed_before", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_a_deploy_that_fails_anywhere_leaves_everything_as_it_was(
    fault: Callable[[House], None], deployed_before: bool
) -> None:
    async def scenario(house: House) -> None:
        if deployed_before:
            await house.deploy(port=7400)
        before = house.state()
        fault(house)
        with pytest.raises((InvalidService, InternalError, Conflict)):
            await house.deploy("b:2", port=7401)
        await house.same(before)

    play(scenario)


def test_what_a_failed_first_deploy_wrote_is_removed_once_its_replica_has_ended() -> None:
    async def scenario(house: House) -> None:
        house.packages.known["slow:1"] = Needs(Path("/src"), Path("/bento"), "service:Slow")
        house.launcher.hold_stop()
        async with anyio.create_task_group() as tasks:

            async def deploy() -> None:
                with pytest.raises(StartTimeout) as raised:
                    await house.deploy("slow:1", start_within=0.1)
                assert raised.value.detail == {"log": ["loads for ever"]}
                assert "torpor logs" not in raised.value.message

            tasks.start_soon(deploy)
            await until(lambda: house.launcher.holding == 1)
            assert house.forgotten == []
            house.launcher.release()
        assert house.forgotten == ["e"]
        assert house.launcher.alive == {}

    play(scenario)


Reached = Callable[[], bool]


def at_the_environment(house: House) -> Reached:
    house.packages.gate.shut()
    return house.packages.gate.reached.is_set


def before_the_process(house: House) -> Reached:
    house.launcher.hold_start()
    return lambda: house.launcher.holding == 1


def before_it_is_ready(house: House) -> Reached:
    house.launcher.hold_ready()
    return lambda: any(not fake.ready for fake in house.launcher.alive.values())


def at_the_preloading(house: House) -> Reached:
    house.launcher.hold_prepare()
    return lambda: house.launcher.holding == 1


def at_the_port(house: House) -> Reached:
    house.ports.gate.shut()
    return house.ports.gate.reached.is_set


PLACES = [at_the_environment, before_the_process, before_it_is_ready, at_the_preloading, at_the_port]


@pytest.mark.parametrize("deployed_before", [False, True])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: str(place.__name__))
def test_a_caller_who_leaves_anywhere_leaves_everything_as_it_was(
    place: Callable[[House], Reached], deployed_before: bool
) -> None:
    async def scenario(house: House) -> None:
        if deployed_before:
            await house.deploy(port=7400)
        before = house.state()
        reached = place(house)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: house.deploy("b:2", port=7401))
            await until(reached)
            tasks.cancel_scope.cancel()
            for gate in (house.packages.gate, house.ports.gate):
                gate.open()
            house.launcher.release()
        await house.same(before)
        assert set(house.forgotten) <= (set() if deployed_before else {"e"})
        await house.deploy("b:3")
        assert house.catalog.endpoints["e"].bento == "b:3"

    play(scenario)


def test_a_caller_who_leaves_at_any_event_leaves_everything_as_it_was() -> None:
    async def scenario(house: House) -> None:
        house.packages.lines = ("Installed 2 packages",)
        await house.deploy()
        before = house.state()
        events = 0
        while True:
            scope = anyio.CancelScope()
            heard: list[dict[str, Any]] = []

            def tell(event: dict[str, Any]) -> None:
                heard.append(event)  # noqa: B023 - called before the next turn
                if len(heard) > events:  # noqa: B023
                    scope.cancel()  # noqa: B023

            with scope:
                await house.deploys.deploy(Request("e", "b:2", {}, Settings()), tell)
            if not scope.cancelled_caught:
                break
            await house.same(before)
            events += 1
        assert events == 4
        assert house.catalog.endpoints["e"].bento == "b:2"

    play(scenario)


def test_a_write_that_has_begun_is_seen_through_and_published_whoever_leaves() -> None:
    async def scenario(house: House) -> None:
        house.records.gate.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.deploy)
            await house.records.gate.reached.wait()
            tasks.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.02, house.records.gate.open)
        assert house.catalog.endpoints == house.records.rows != {}
        assert house.stage.want().lease is not None

    play(scenario)


def test_two_deploys_of_one_endpoint_at_once_are_refused_and_the_first_goes_on() -> None:
    async def scenario(house: House) -> None:
        house.packages.gate.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.deploy)
            await house.packages.gate.reached.wait()
            with pytest.raises(Conflict, match="is being deployed or removed"):
                await house.deploy("b:2")
            with pytest.raises(Conflict, match="is being deployed or removed"):
                await house.deploys.remove("e")
            house.packages.gate.open()
        assert house.catalog.endpoints["e"].bento == "b:1"
        await house.deploy("b:2", name="another")

    play(scenario)


def test_a_port_moves_when_the_new_revision_is_live_and_not_before() -> None:
    async def scenario(house: House) -> None:
        await house.deploy(port=7400)
        assert house.ports.listening == {7400}
        house.records.gate.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: house.deploy("b:2", port=7401))
            await house.records.gate.reached.wait()
            assert house.ports.listening == {7400, 7401}
            assert house.catalog.resolve(b"/hi", b"h", 7400) is not None
            house.records.gate.open()
        assert house.ports.listening == {7401}
        assert house.catalog.resolve(b"/hi", b"h", 7400) is None
        await house.deploy("b:3", port=7401)
        assert house.ports.listening == {7401}, "one that stays is not opened twice"
        await house.deploy("b:3")
        assert house.ports.listening == set()

    play(scenario)


def test_the_plan_of_a_revision_that_is_live_no_more_is_not_made() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await house.deploy("b:2")
        plan = await house.deploys.plan("e", 2)
        assert (plan.learn, plan.modules) == (False, ("json",))
        for endpoint, revision in (("e", 1), ("nobody", 1)):
            with pytest.raises(NotFound, match="not live any more"):
                await house.deploys.plan(endpoint, revision)

    play(scenario)


def fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__slots__}
