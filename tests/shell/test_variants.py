"""Variants and their promotion: whole or not at all, and no call is lost by their end."""

from __future__ import annotations

import anyio
import pytest

from router.core.settings import Settings
from router.core.split import Rule
from router.proxy.calls import Outcome, Target
from router.shell.request import Request
from tests.shell.test_deploys import House, play, until
from tests.shell.test_revisions import live
from torpor.errors import BadRequest, EndpointNotFound, NotFound, StartFailed

TENTH = Rule("random", "", 10)


async def beside(house: House, variant: str = "canary", rule: Rule | None = TENTH, bento: str = "b:2") -> None:
    request = Request("e", bento, {}, Settings(), variant=variant, rule=rule)
    await house.deploys.deploy(request, house.told.append)


def test_a_variant_is_live_beside_and_changes_nothing_of_the_live_revision() -> None:
    async def scenario(house: House) -> None:
        await house.deploy(port=7400)
        await beside(house)
        await beside(house, "staging", None, "b:3")
        assert live(house) == (1, "b:1")
        assert {line: entry.revision for line, entry in house.catalog.beside.items()} == {
            "e~canary": 2,
            "e~staging": 3,
        }
        assert house.records.variants["e"] == house.catalog.variants["e"]
        assert house.ports.listening == {7400}
        for line in ("e", "e~canary", "e~staging"):
            assert house.stage.want(line).lease is not None

    play(scenario)


@pytest.mark.parametrize(
    ("variant", "rule", "says"),
    [
        ("canary", Rule("random", "", 101), "the weight 101 of 'canary' is no percent"),
        ("other", Rule("random", "", 91), "101 percent together"),
        ("other", Rule("header", "X-User", 1), "different rules: header X-User, random"),
        ("other", Rule("header", "", 1), "names no header"),
        ("other", Rule("sometimes", "", 1), "'sometimes' is no rule"),
        ("Other", TENTH, "'Other' cannot be a version's name"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused_before_anything_starts(variant: str, rule: Rule, says: str) -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        before = house.state()
        with pytest.raises(BadRequest, match=says):
            await beside(house, variant, rule)
        await house.same(before)

    play(scenario)


def test_a_variant_needs_an_endpoint() -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(NotFound, match="'e' has no live revision yet"):
            await beside(house)

    play(scenario)


def test_of_a_variant_that_cannot_start_nothing_stays() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        before = house.state()
        with pytest.raises(StartFailed):
            await beside(house, bento="broken:1")
        await house.same(before)
        assert house.forgotten == ["e~canary"]
        await beside(house)
        with pytest.raises(StartFailed):
            await beside(house, bento="broken:1")
        assert house.forgotten == ["e~canary"], "the one that is there keeps its log"
        assert house.catalog.beside["e~canary"].revision == 2

    play(scenario)


def test_a_promoted_canary_is_live_and_has_ended_and_an_environment_stays() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        await beside(house, "staging", None, "b:3")
        await house.deploys.promote("e", "canary", house.told.append)
        assert live(house) == (2, "b:2")
        assert list(house.catalog.beside) == ["e~staging"]
        assert house.forgotten == ["e~canary"]
        await house.deploys.promote("e", "staging", house.told.append)
        assert live(house) == (3, "b:3")
        assert list(house.catalog.beside) == ["e~staging"]
        assert house.records.before("e") == 2
        with pytest.raises(NotFound, match="'e' has no variant 'canary'"):
            await house.deploys.promote("e", "canary", house.told.append)

    play(scenario)


def test_a_promotion_that_fails_leaves_the_canary_and_the_live_one() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        before = house.state()
        house.packages.known["b:2"] = house.packages.known["broken:1"]
        with pytest.raises(StartFailed):
            await house.deploys.promote("e", "canary", house.told.append)
        await house.same(before)

    play(scenario)


def test_a_deploy_of_the_live_revision_ends_the_canary_and_not_an_environment() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        await beside(house, "staging", None, "b:3")
        await house.deploy("b:3")
        assert [variant.name for variant in house.catalog.variants["e"]] == ["staging"]
        assert set(house.engine.schedule.lines) == {"e", "e~staging"}

    play(scenario)


def test_a_rule_changes_without_a_start_and_its_end_takes_the_variant_away() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        starts = len(house.launcher.started)
        await house.deploys.vary("e", "canary", Rule("header", "X-User", 50))
        (variant,) = house.records.variants["e"]
        assert (variant.rule, variant.revision) == (Rule("header", "X-User", 50), 2)
        before = house.state()
        with pytest.raises(BadRequest):
            await house.deploys.vary("e", "canary", Rule("random", "", 101))
        with pytest.raises(NotFound):
            await house.deploys.vary("e", "nobody", None)
        await house.same(before)
        await house.deploys.vary("e", "canary", None)
        assert (house.catalog.variants, house.catalog.beside) == ({}, {})
        assert (house.records.variants["e"], house.forgotten) == ((), ["e~canary"])
        assert set(house.engine.schedule.lines) == {"e"}
        assert len(house.launcher.started) == starts

    play(scenario)


def test_an_end_that_has_begun_is_seen_through_whoever_leaves() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        await until(lambda: house.launcher.alive != {})
        call = house.stage.want("e~canary")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.deploys.vary, "e", "canary", None)
            await until(lambda: house.catalog.variants == {})
            tasks.cancel_scope.cancel()
            call.settle()
        assert (set(house.engine.schedule.lines), house.forgotten) == ({"e"}, ["e~canary"])

    play(scenario)


@pytest.mark.parametrize("end", ["promote", "vary"])
def test_calls_that_wait_for_a_canary_are_served_by_the_live_one_when_it_ends(end: str) -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        await house.engine.sleep("e~canary")
        house.launcher.hold_ready()
        calls = [house.stage.want("e~canary") for _ in range(3)]
        await until(lambda: any(not fake.ready for fake in house.launcher.alive.values()))
        assert all(call.waits for call in calls)
        if end == "promote":
            house.launcher._hold_ready = False  # of those that begin from now on
            await house.deploys.promote("e", "canary", house.told.append)
        else:
            await house.deploys.vary("e", "canary", None)
        for call in calls:
            assert (await call.answer()).replica.startswith("e-")
            call.settle()
        house.stage.nothing_is_held()

    play(scenario)


def test_calls_that_wait_for_an_environment_that_ends_are_not_answered_by_another_version() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house, "staging", None)
        await house.engine.sleep("e~staging")
        house.launcher.hold_ready()
        call = house.stage.want("e~staging")
        await until(lambda: any(not fake.ready for fake in house.launcher.alive.values()))
        await house.deploys.vary("e", "staging", None)
        assert isinstance(call.error, EndpointNotFound)

    play(scenario)


def test_a_call_that_died_with_an_ended_canary_is_sent_again_to_the_live_one() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house)
        address = house.catalog.resolve(b"/endpoints/e/hi", b"h", None)
        assert address is not None
        shared = Target("e~canary", b"/hi", address.split)
        call = house.stage.want("e~canary")
        lease, call.lease = call.lease, None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.deploys.vary, "e", "canary", None)
            await until(lambda: house.catalog.variants == {})
            assert lease is not None
            house.engine.replay(call, lease, shared)
        assert (await call.answer()).replica.startswith("e-1-")
        house.engine.settle(await call.answer(), Outcome.DONE)

    play(scenario)


def test_a_variant_is_no_endpoint() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        await beside(house, "staging", None)
        before = house.state()
        for change in (house.deploys.remove, house.deploys.terminate):
            with pytest.raises(EndpointNotFound):
                await change("e~staging")
        for adopt in (house.deploys.start, lambda name, tell: house.deploys.rollback(name, 1, tell)):
            with pytest.raises(EndpointNotFound):
                await adopt("e~staging", house.told.append)
        await house.same(before)

    play(scenario)
