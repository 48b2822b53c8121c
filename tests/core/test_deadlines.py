"""The deadlines: what is due when."""

from __future__ import annotations

import random

from router.core.deadlines import Deadlines


def test_the_earliest_comes_first_and_once() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("b", 2)
    deadlines.set("a", 1)
    deadlines.set("c", 9)
    assert deadlines.next() == 1
    assert list(deadlines.due(5)) == ["a", "b"]
    assert list(deadlines.due(5)) == []
    assert deadlines.next() == 9


def test_a_postponed_deadline_is_not_due_at_its_old_instant() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("idle", 1)
    deadlines.set("idle", 7)
    assert list(deadlines.due(6)) == []
    assert deadlines.next() == 7


def test_a_cleared_deadline_is_never_due() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("idle", 1)
    deadlines.clear("idle")
    assert deadlines.next() is None
    assert list(deadlines.due(9)) == []


def test_it_agrees_with_a_plain_dict_on_any_sequence() -> None:
    rng = random.Random(7)
    deadlines: Deadlines[int] = Deadlines()
    plain: dict[int, float] = {}
    now = 0.0
    for _ in range(5000):
        key = rng.randrange(12)
        match rng.randrange(4):
            case 0 | 1:
                plain[key] = now + rng.randrange(20)
                deadlines.set(key, plain[key])
            case 2:
                plain.pop(key, None)
                deadlines.clear(key)
            case _:
                now += rng.randrange(4)
                due = sorted(k for k, at in plain.items() if at <= now)
                assert sorted(deadlines.due(now)) == due
                for k in due:
                    del plain[k]
        assert deadlines.next() == min(plain.values(), default=None)
