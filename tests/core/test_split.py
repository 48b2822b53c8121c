"""Which version a call goes to: shares within bounds, one value to one version, rules that cannot be."""

from __future__ import annotations

import random

import pytest

from router.core.split import (
    VARIANTS_MAX,
    Rule,
    Split,
    Variant,
    check_variants,
    endpoint_of,
    header_value,
    line_of,
    query_value,
    split_of,
)
from torpor.errors import BadRequest

CALLS = 10_000


def split(*rules: Rule) -> Split:
    found = split_of("e", tuple(Variant(f"v{number}", number, rule) for number, rule in enumerate(rules)))
    assert found is not None
    return found


def counted(found: Split, values: list[bytes] | None = None) -> dict[str | None, int]:
    """Calls by the line that they go to."""
    draw = random.Random(7)
    counts: dict[str | None, int] = {}
    for number in range(CALLS):
        line = found.choose(values[number] if values else None, draw.random())
        counts[line] = counts.get(line, 0) + 1
    return counts


@pytest.mark.parametrize("weight", [1, 10, 50, 99])
@pytest.mark.parametrize("kind", ["random", "header", "query"])
def test_a_share_is_what_its_weight_says_within_a_percent_and_a_half(kind: str, weight: int) -> None:
    values = None if kind == "random" else [b"user-%d" % number for number in range(CALLS)]
    counts = counted(split(Rule(kind, "X-User", weight)), values)
    assert counts["e~v0"] == pytest.approx(CALLS * weight / 100, abs=CALLS * 0.015)
    assert counts["e~v0"] + counts[None] == CALLS


def test_several_versions_have_their_shares_and_the_live_one_the_rest() -> None:
    counts = counted(split(Rule("random", weight=20), Rule("random", weight=30)))
    assert counts["e~v0"] == pytest.approx(2000, abs=150)
    assert counts["e~v1"] == pytest.approx(3000, abs=150)
    assert counts[None] == pytest.approx(5000, abs=150)


@pytest.mark.parametrize(("weight", "lines"), [(0, {None}), (100, {"e~v0"})])
@pytest.mark.parametrize("kind", ["random", "header"])
def test_nothing_and_everything_are_exact(kind: str, weight: int, lines: set[str | None]) -> None:
    values = [b"%d" % number for number in range(CALLS)]
    assert set(counted(split(Rule(kind, "X-User", weight)), values)) == lines


def test_a_value_goes_to_one_version_always_and_stays_there_while_its_share_grows() -> None:
    values = [b"user-%d" % number for number in range(1000)]
    before: set[bytes] = set()
    for weight in (5, 20, 60, 100):
        found = split(Rule("header", "X-User", weight))
        chosen = {value for value in values if found.choose(value, random.random())}
        assert chosen == {value for value in values if found.choose(value, random.random())}
        assert before <= chosen
        before = chosen


def test_a_caller_without_the_value_gets_the_live_revision() -> None:
    assert split(Rule("header", "X-User", 100)).choose(None, 0.0) is None
    assert split(Rule("query", "user", 100)).choose(None, 0.0) is None


def test_an_environment_takes_no_share_and_a_shadow_only_copies() -> None:
    assert split_of("e", (Variant("staging", 2, Rule("address")),)) is None
    found = split(Rule("shadow", weight=25))
    assert set(counted(found)) == {None}
    draw = random.Random(7)
    copies = sum(found.shadow(draw.random()) == "e~v0" for _ in range(CALLS))
    assert copies == pytest.approx(2500, abs=150)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([Rule("random", weight=101)], "the weight 101 of 'v0' is no percent\nuse 0 to 100"),
        ([Rule("random", weight=-1)], "the weight -1 of 'v0' is no percent"),
        ([Rule("random", weight=60), Rule("random", weight=41)], "101 percent together\nleave the live one its share"),
        ([Rule("shadow", weight=60), Rule("shadow", weight=41)], "101 percent together"),
        ([Rule("header", weight=1)], "a header rule names no header"),
        ([Rule("query", weight=1)], "a query rule names no query"),
        ([Rule("sometimes", weight=1)], "'sometimes' is no rule\nuse random, header, query"),
        ([Rule("header", "A", 1), Rule("header", "B", 1)], "different rules: header A, header B"),
        ([Rule("address")] * (VARIANTS_MAX + 1), f"{VARIANTS_MAX + 1} versions beside the live one"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rules: list[Rule], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        check_variants(tuple(Variant(f"v{number}", 1, rule) for number, rule in enumerate(rules)))


def test_rules_that_can_be_kept_are_let_be() -> None:
    rules = [Rule("header", "A", 60), Rule("header", "A", 40), Rule("shadow", weight=100), Rule("address")]
    check_variants(tuple(Variant(f"v{number}", 1, rule) for number, rule in enumerate(rules)))


def test_a_line_is_named_after_its_endpoint() -> None:
    assert (line_of("e", "canary"), line_of("e", "")) == ("e~canary", "e")
    assert (endpoint_of("e~canary"), endpoint_of("e")) == ("e", "e")


def test_the_value_is_the_headers_first_whatever_its_case_or_the_querys() -> None:
    lines = [b"Accept: */*", b"X-USER:  ann ", b"x-user: bob"]
    assert header_value("x-user", lines) == b"ann"
    assert header_value("x-users", lines) is None
    assert query_value("user", b"/hi?a=1&user=ann%20b&user=c") == b"ann b"
    assert query_value("user", b"/hi?user=") == b""
    assert query_value("user", b"/hi") is None
