"""Which revisions of an endpoint were live before: where a rollback that names none leads."""

from __future__ import annotations

KEPT = 100  # of them, the latest


def after(past: tuple[int, ...], old: int, new: int) -> tuple[int, ...]:
    """The revisions to go back to, the nearest last, once `new` is live in the place of `old` (0: none was).

    Going back to one of them forgets those that came after it: the next rollback goes further back, and not to what
    was left by the one before.
    """
    if new in past:
        return past[: past.index(new)]
    if old in (0, new):
        return past
    return (*past, old)[-KEPT:]
