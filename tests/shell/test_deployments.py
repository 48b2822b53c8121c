"""Deployments as BentoCloud's command line knows them: what is told while they are made, after they failed, at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest

from router.core.catalog import Fault
from router.core.settings import Settings
from router.shell.deployments import Deployments, Status
from router.shell.request import Request
from tests.shell.fakes.stage import Stage, beside_an_engine
from tests.shell.test_deploys import PATIENCE, House, until
from torpor.errors import Conflict, InvalidService, NotFound, TorporError


@dataclass
class FakeKept:
    """Faults and events in memory; `begun` are the names that deploys have taken."""

    faults: dict[str, Fault] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)

    def all(self) -> list[Fault]:
        return list(self.faults.values())

    async def clear(self) -> None:
        self.begun.clear()

    async def begin(self, name: str, uid: str, created_at: float) -> None:
        self.begun[name] = uid

    async def fail(self, fault: Fault) -> None:
        self.faults[fault.name] = fault

    async def drop(self, name: str) -> None:
        self.faults.pop(name, None)
        self.begun.pop(name, None)

    def note(self, name: str, kind: str, text: str) -> None:
        self.notes.append((name, kind, text))


class Town(House):
    """A house, and the deployments over it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.kept = FakeKept()
        self.deployments = Deployments(self.deploys, self.engine, self.kept, "127.0.0.1", 7400)

    async def create(self, bento: str = "b:1", name: str = "e") -> None:
        body = {"bento": bento}
        await self.deployments.create(Request(name, bento, {}, Settings(), creator="me"), body)

    async def update(self, bento: str, name: str = "e") -> None:
        await self.deployments.update(Request(name, bento, {}, Settings()), {"bento": bento})


def play(scenario: Callable[[Town], Awaitable[None]]) -> None:
    async def main(stage: Stage) -> None:
        town = Town(stage)
        try:
            await scenario(town)
        finally:
            await town.deployments.close()

    anyio.run(beside_an_engine, main, PATIENCE)


def test_a_deployment_is_live_at_a_port_of_its_own_when_its_creation_is_answered() -> None:
    async def scenario(town: Town) -> None:
        await town.create()
        entry = town.catalog.endpoints["e"]
        assert town.deployments.status("e") is Status.RUNNING
        assert entry.settings.port in town.ports.listening
        assert entry.uid == town.kept.begun["e"], "it is the same thing before and after"
        assert entry.creator == "me"
        assert town.kept.notes[-1] == ("e", "deployed", "revision 1 is live")

    play(scenario)


def test_the_address_stays_through_all_revisions_and_through_termination() -> None:
    async def scenario(town: Town) -> None:
        await town.create()
        port = town.catalog.endpoints["e"].settings.port
        await town.update("b:2")
        assert town.catalog.endpoints["e"].settings.port == port
        await town.deployments.terminate("e")
        assert town.deployments.status("e") is Status.TERMINATED
        assert port in town.ports.listening, "nobody else may take it"
        await town.update("b:3")
        assert town.catalog.endpoints["e"].settings.port == port
        assert town.deployments.status("e") is Status.RUNNING

    play(scenario)


def test_while_an_environment_is_made_the_image_is_building_and_its_lines_are_kept() -> None:
    async def scenario(town: Town) -> None:
        town.packages.lines = ("Resolved 2 packages",)
        town.packages.gate.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(town.create)
            await town.packages.gate.reached.wait()
            assert town.deployments.status("e") is Status.BUILDING
            assert list(town.deployments.under_way["e"].lines) == ["Resolved 2 packages"]
            town.packages.gate.open()
        assert town.deployments.status("e") is Status.RUNNING
        assert ("e", "build", "Resolved 2 packages") in town.kept.notes

    play(scenario)


def test_an_environment_that_cannot_be_made_is_told_as_that_with_the_installers_words() -> None:
    async def scenario(town: Town) -> None:
        town.packages.lines = ("No solution found",)
        town.packages.gate.error = InvalidService("the packages cannot be installed: No solution found\nmend them")
        await town.create()
        assert town.deployments.status("e") is Status.BUILD_FAILED
        assert "No solution found" in town.kept.faults["e"].text
        assert town.catalog.endpoints == {}

    play(scenario)


def test_a_failed_update_is_told_and_the_live_revision_goes_on_until_the_next_one_succeeds() -> None:
    async def scenario(town: Town) -> None:
        await town.create()
        await town.update("broken:1")
        assert town.deployments.status("e") is Status.FAILED
        assert town.catalog.endpoints["e"].revision == 1
        call = town.stage.want()
        assert call.lease is not None, "it goes on serving"
        call.settle()
        assert town.kept.notes[-1][2].endswith("revision 1 goes on serving")
        await town.update("b:2")
        assert town.deployments.status("e") is Status.RUNNING

    play(scenario)


def test_a_fault_is_known_after_a_restart_and_over_with_another_revision() -> None:
    async def scenario(town: Town) -> None:
        await town.create("broken:1")
        again = Deployments(town.deploys, town.engine, town.kept, "127.0.0.1", 7400)
        await again.open()
        assert again.status("e") is Status.FAILED
        assert again.faults["e"].asked["body"] == {"bento": "broken:1"}
        await town.deploys.deploy(Request("e", "b:1", {}, Settings()), town.told.append)
        assert again.status("e") is Status.RUNNING, "torpor's own deploy counts too"
        await again.update(Request("e", "broken:1", {}, Settings()), {"bento": "broken:1"})
        assert again.status("e") is Status.FAILED
        await town.deploys.deploy(Request("e", "b:2", {}, Settings()), town.told.append)
        await town.deploys.rollback("e", 1, town.told.append)
        assert again.status("e") is Status.RUNNING, "also when the revision is live that was live when it failed"

    play(scenario)


def test_a_name_whose_deploys_all_failed_can_be_created_again() -> None:
    async def scenario(town: Town) -> None:
        await town.create("broken:1")
        await town.create("b:1")
        assert town.deployments.status("e") is Status.RUNNING

    play(scenario)


def test_a_name_that_is_live_or_under_way_is_taken() -> None:
    async def scenario(town: Town) -> None:
        town.packages.gate.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(town.create)
            await town.packages.gate.reached.wait()
            with pytest.raises(Conflict):
                await town.create()
            with pytest.raises(Conflict):
                await town.update("b:2")
            town.packages.gate.open()
        with pytest.raises(Conflict):
            await town.create()

    play(scenario)


def test_what_is_wrong_at_once_changes_nothing_and_frees_the_name() -> None:
    async def scenario(town: Town) -> None:
        with pytest.raises(NotFound):
            await town.create("nowhere:1")
        assert town.deployments.under_way == {}
        assert town.kept.begun == {}
        with pytest.raises(NotFound):
            town.deployments.status("e")

    play(scenario)


@pytest.mark.parametrize("end", ["terminate", "delete"])
def test_a_first_deploy_under_way_is_given_up_when_it_is_ended(end: str) -> None:
    async def scenario(town: Town) -> None:
        town.packages.gate.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(town.create)
            await town.packages.gate.reached.wait()
            await getattr(town.deployments, end)("e")
        assert town.catalog.endpoints == {}
        if end == "terminate":
            assert town.deployments.status("e") is Status.TERMINATED
        else:
            assert town.deployments.names() == []
        await until(lambda: not town.engine.schedule.replicas)

    play(scenario)


def test_two_deployments_at_once_get_two_ports() -> None:
    async def scenario(town: Town) -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("e", "f", "g"):
                tasks.start_soon(town.create, "b:1", name)
        ports = {entry.settings.port for entry in town.catalog.endpoints.values()}
        assert len(ports) == 3

    play(scenario)


def test_a_port_that_is_given_is_nobody_else_s_while_the_deploy_is_made_ready() -> None:
    async def scenario(town: Town) -> None:
        town.launcher.hold_start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(town.create)
            await until(lambda: town.launcher.holding == 1)
            port = town.deployments.under_way["e"].request.settings.port
            assert port is not None
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port)).close()
            with socket.socket() as caller:
                assert caller.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED, "nobody is kept waiting there"
            town.deployments.let_go(port)
            socket.create_server(("127.0.0.1", port)).close()
            town.launcher.release()
        assert town.catalog.endpoints["e"].settings.port == port

    play(scenario)


@pytest.mark.parametrize("bento", ["b:1", "nowhere:1"])
def test_a_port_is_kept_no_longer_than_its_deploy_takes(bento: str) -> None:
    async def scenario(town: Town) -> None:
        first = town.deployments._take_port(7400)
        town.deployments.let_go(first)
        with suppress(TorporError):
            await town.create(bento)
        socket.create_server(("127.0.0.1", first)).close()

    play(scenario)


def test_deleted_means_nothing_stays() -> None:
    async def scenario(town: Town) -> None:
        await town.create()
        await town.deployments.delete("e")
        assert town.deployments.names() == []
        assert town.records.rows == {}
        assert town.ports.listening == set()
        with pytest.raises(NotFound):
            await town.deployments.delete("e")

    play(scenario)
