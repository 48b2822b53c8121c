"""Which revision of an endpoint a call goes to, where it has several: by chance, by a header, by a query's value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from router.core.verdict import Bounds
from torpor.errors import BadRequest
from torpor.wire import NAME

BETWEEN = "~"  # an endpoint's name and a variant's: no endpoint can be called so
WHOLE = 100  # weights are percents
KINDS = ("random", "header", "query")  # of BentoCloud's schema, `DeploymentRoutingSchema`
VARIANTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """How calls come to a variant.

    `kind`: one of KINDS, by which `weight` percent of the calls do; "address": those to the variant's own address;
    "shadow": copies of `weight` percent of the calls, whose answers nobody is given. `by`: the header or the query's
    key. `watch`: bounds of what is seen, `router/core/verdict.py`.
    """

    kind: str
    by: str = ""
    weight: int = 0
    watch: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """A revision of an endpoint beside the live one."""

    name: str
    revision: int
    rule: Rule
    created_at: float = 0.0  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Split:
    """The rules of one endpoint that share out its calls; `shares`: line and percent of each variant."""

    kind: str
    by: str
    shares: tuple[tuple[str, int], ...]
    shadows: tuple[tuple[str, int], ...] = ()

    def choose(self, value: bytes | None, draw: float) -> str | None:
        """The variant's line, None for the live revision.

        `value`: of the header or the query's key, of which each goes to one version always; None: the caller sent
        none, and gets the live one. `draw`: from 0 up to 1.
        """
        if self.kind != "random":
            if value is None:
                return None
            draw = int.from_bytes(hashlib.blake2b(value, digest_size=4).digest()) / (1 << 32)
        return chosen(self.shares, draw)

    def shadow(self, draw: float) -> str | None:
        """The line that gets a copy of this call."""
        return chosen(self.shadows, draw)


def chosen(shares: tuple[tuple[str, int], ...], draw: float) -> str | None:
    point, end = draw * WHOLE, 0
    for line, weight in shares:
        end += weight
        if point < end:
            return line
    return None


def split_of(endpoint: str, variants: tuple[Variant, ...]) -> Split | None:
    """What an endpoint's variants make together, None where all calls go to the live revision."""
    sharing = [v for v in variants if v.rule.kind in KINDS]
    shadows = tuple((line_of(endpoint, v.name), v.rule.weight) for v in variants if v.rule.kind == "shadow")
    if not sharing and not shadows:
        return None
    rule = sharing[0].rule if sharing else Rule("random")
    shares = tuple((line_of(endpoint, v.name), v.rule.weight) for v in sharing)
    return Split(rule.kind, rule.by.lower() if rule.kind == "header" else rule.by, shares, shadows)


def check_variants(variants: tuple[Variant, ...]) -> None:
    """Raises BadRequest for what cannot be shared out so."""
    if len(variants) > VARIANTS_MAX:
        raise BadRequest(f"{len(variants)} versions beside the live one\nname at most {VARIANTS_MAX}")
    for variant in variants:
        rule = variant.rule
        if not NAME.fullmatch(variant.name):
            raise BadRequest(
                f"{variant.name!r} cannot be a version's name\nuse 1 to 63 lower-case letters, digits and hyphens"
            )
        if not 0 <= rule.weight <= WHOLE:
            raise BadRequest(f"the weight {rule.weight} of {variant.name!r} is no percent\nuse 0 to {WHOLE}")
        if rule.kind in ("header", "query") and not rule.by:
            raise BadRequest(f"a {rule.kind} rule names no {rule.kind}\nset route_by")
        if rule.kind not in (*KINDS, "address", "shadow"):
            raise BadRequest(f"{rule.kind!r} is no rule\nuse {', '.join(KINDS)}")
        if rule.watch and rule.kind not in KINDS:
            raise BadRequest(f"{variant.name!r} has no share of the calls to watch\ngive it one: {', '.join(KINDS)}")
        Bounds.of(rule.watch)
    sharing = [v for v in variants if v.rule.kind in KINDS]
    if len(rules := {(v.rule.kind, v.rule.by) for v in sharing}) > 1:
        named = ", ".join(sorted(f"{kind} {by}".strip() for kind, by in rules))
        raise BadRequest(f"the versions share the calls by different rules: {named}\nuse one rule for all of them")
    for group in (sharing, [v for v in variants if v.rule.kind == "shadow"]):
        total = sum(v.rule.weight for v in group)
        if total > WHOLE:
            raise BadRequest(f"the versions have {total} percent together\nleave the live one its share of {WHOLE}")


def line_of(endpoint: str, variant: str) -> str:
    """The name under which the schedule runs a variant, `""` for the live revision."""
    return f"{endpoint}{BETWEEN}{variant}" if variant else endpoint


def endpoint_of(line: str) -> str:
    return line.partition(BETWEEN)[0]


def header_value(name: str, lines: list[bytes]) -> bytes | None:
    """The first value of a header, among lines as they came. `name` in lower case."""
    wanted = name.encode("latin-1") + b":"
    for line in lines:
        if line[: len(wanted)].lower() == wanted:
            return line[len(wanted) :].strip()
    return None


def query_value(name: str, path: bytes) -> bytes | None:
    found = parse_qs(path.partition(b"?")[2], keep_blank_values=True, max_num_fields=1000).get(name.encode())
    return found[0] if found else None
