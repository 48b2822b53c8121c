"""Where a rollback leads."""

from __future__ import annotations

from router.core import past


def lived(*numbers: int) -> tuple[int, ...]:
    """What is left to go back to after these were made live, one after the other."""
    found: tuple[int, ...] = ()
    live = 0
    for number in numbers:
        found, live = past.after(found, live, number), number
    return found


def test_a_first_revision_leads_nowhere_and_the_next_to_it() -> None:
    assert lived(1) == ()
    assert lived(1, 2) == (1,)
    assert lived(1, 2, 2) == (1,), "starting the live one again is no change"


def test_going_back_forgets_what_came_after() -> None:
    assert lived(1, 2, 3, 2) == (1,)
    assert lived(1, 2, 3, 1) == ()
    assert lived(1, 2, 1, 3) == (1,), "what was left for a reason is not gone back to"


def test_a_revision_that_was_never_live_is_a_step_like_a_deploy() -> None:
    assert lived(1, 3, 2) == (1, 3)


def test_only_the_latest_are_kept() -> None:
    assert lived(*range(1, 300)) == tuple(range(299 - past.KEPT, 299))
