"""What a verdict does to an endpoint: once, when nothing else changes it, and only for the canary that was judged."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import pytest

from router.core.split import Rule
from router.proxy.tally import Tallies
from router.shell.watch import Watch
from tests.shell.test_deploys import House, play
from tests.shell.test_revisions import live
from tests.shell.test_variants import beside
from torpor.errors import BadRequest

WATCHED = Rule("random", "", 10, {"window": 60, "promote": True})


@dataclass
class Watched:
    """The deploys of a house, watched by a clock that is set."""

    house: House
    now: float = 0.0
    noted: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = Tallies(lambda: self.now)
        self.watch = Watch(
            self.house.catalog,
            self.house.deploys,
            self.tallies,
            lambda *note: self.noted.append(note),
            lambda: self.now,
        )

    def called(self, line: str, codes: dict[int, int]) -> None:
        tally = self.tallies.of(line)
        for code, count in codes.items():
            tally.codes[code] += count
            for _ in range(count):
                tally.warm.add(0.01)

    async def look(self, seconds: float = 2.0) -> None:
        """A look, and what follows from it."""
        self.now += seconds
        async with anyio.create_task_group() as tasks:
            self.watch.look(tasks)

    @property
    def rule(self) -> Rule:
        (variant,) = self.house.catalog.variants["e"]
        return variant.rule

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.noted]


async def begun(house: House, rule: Rule = WATCHED) -> Watched:
    await house.deploy()
    await beside(house, rule=rule)
    watched = Watched(house)
    await watched.look()
    return watched


def test_a_canary_that_fails_gets_no_calls_any_more_and_stays() -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house)
        watched.called("e", {200: 500})
        watched.called("e~canary", {200: 40, 500: 20})
        await watched.look()
        assert watched.rule == Rule("random", "", 0, WATCHED.watch)
        assert house.records.variants["e"] == house.catalog.variants["e"]
        assert live(house) == (1, "b:1")
        ((name, kind, text),) = watched.noted
        assert (name, kind) == ("e", "canary_rolled_back")
        assert text.startswith("canary, revision 2, gets no calls any more\nerrors in 33.3% of 60 calls")
        await watched.look()
        assert len(watched.noted) == 1

    play(scenario)


def test_a_clean_canary_is_promoted_after_its_window() -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house)
        watched.called("e", {200: 500})
        watched.called("e~canary", {200: 60})
        await watched.look(50)
        assert live(house) == (1, "b:1")
        await watched.look(10)
        assert live(house) == (2, "b:2")
        assert "e" not in house.catalog.variants
        assert watched.kinds() == ["promoted"]

    play(scenario)


@pytest.mark.parametrize("rule", [Rule("random", "", 10), Rule("random", "", 0, {"window": 60})])
def test_a_canary_that_is_not_watched_or_gets_nothing_is_left_alone(rule: Rule) -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house, rule)
        watched.called("e", {200: 500})
        watched.called("e~canary", {500: 100})
        await watched.look()
        assert (watched.rule, watched.noted) == (rule, [])

    play(scenario)


def test_callers_who_left_are_neither_calls_nor_errors_and_a_broken_answer_is_one() -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house)
        watched.called("e", {200: 500})
        watched.called("e~canary", {499: 1000, 200: 40})
        await watched.look()
        assert watched.noted == []
        watched.called("e~canary", {200: 20})
        watched.tallies.of("e~canary").broken += 20
        await watched.look()
        assert watched.kinds() == ["canary_rolled_back"]

    play(scenario)


def test_a_change_that_is_under_way_goes_first_and_the_rollback_follows() -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house)
        watched.called("e", {200: 500})
        watched.called("e~canary", {500: 100})
        with house.deploys._change("e"):
            await watched.look()
            assert (watched.rule, watched.noted) == (WATCHED, [])
        await watched.look()
        assert watched.kinds() == ["canary_rolled_back"]

    play(scenario)


def test_another_revision_of_the_canary_is_judged_by_its_own_calls() -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house)
        watched.called("e", {200: 500})
        watched.called("e~canary", {500: 100})
        await beside(house, rule=WATCHED, bento="b:3")
        await watched.look()
        await watched.look()
        assert (watched.rule, watched.noted) == (WATCHED, [])

    play(scenario)


def test_a_promotion_that_fails_is_told_once_and_the_live_one_stays() -> None:
    async def scenario(house: House) -> None:
        watched = await begun(house)
        house.packages.known["b:2"] = house.packages.known["broken:1"]
        watched.called("e", {200: 500})
        watched.called("e~canary", {200: 60})
        for _ in range(3):
            await watched.look(60)
            watched.called("e", {200: 500})
            watched.called("e~canary", {200: 60})
        assert live(house) == (1, "b:1")
        assert watched.rule == WATCHED
        assert watched.kinds() == ["promotion_failed"]
        assert watched.noted[0][2].endswith("\nrevision 1 goes on serving")

    play(scenario)


def test_a_rule_that_is_refused_names_its_fault() -> None:
    async def scenario(house: House) -> None:
        await house.deploy()
        faults: list[tuple[Rule, str]] = [
            (Rule("random", "", 10, {"window": -1}), "watch.window=-1"),
            (Rule("shadow", "", 10, {"window": 60}), "'canary' has no share of the calls to watch"),
        ]
        before = house.state()
        for rule, says in faults:
            with pytest.raises(BadRequest, match=says):
                await beside(house, rule=rule)
        await house.same(before)

    play(scenario)
