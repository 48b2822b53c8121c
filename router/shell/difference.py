"""Where two answers to the same call differ first; a place, and nothing of what they say there."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from router.proxy.tap import Answer

CLOSE: Final = 1e-4  # floats that differ by less, relative to the larger, are the same
NOTHING: Final = 1e-6  # and those that differ by less than this, where they are near nothing
NUMBERS: Final = (int, float)  # and no bool
PLACE_MAX: Final = 200  # characters


def difference(live: Answer, copy: Answer) -> str | None:
    """1 the status, 2 the bytes, 3 what they mean as JSON; None: no difference. Blocks for as long as JSON is read.

    Of bodies longer than what was kept, the kept bytes are compared.
    """
    if live.status != copy.status:  # 1
        return "the status"
    ours, theirs = live.body, copy.body
    if ours == theirs and live.whole == copy.whole:  # 2
        return None
    if live.whole and copy.whole:
        try:
            place = unlike(json.loads(ours), json.loads(theirs))  # 3
        except (ValueError, RecursionError):
            pass
        else:
            return None if place is None else place[:PLACE_MAX]
    least = min(len(ours), len(theirs))
    at = next((i for i in range(least) if ours[i] != theirs[i]), least)
    return f"byte {at} of the body" if at < least else f"one body ends at byte {at}"


def unlike(ours: Any, theirs: Any) -> str | None:
    """The first place at which two JSON values differ, as a path from `$`; the keys of an object may come anyhow."""
    left: list[tuple[str, Any, Any]] = [("$", ours, theirs)]
    while left:
        path, one, other = left.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                key = next(key for key in (*one, *other) if (key in one) != (key in other))
                return f"{path}[{json.dumps(key)}]"
            left += [(f"{path}[{json.dumps(key)}]", one[key], other[key]) for key in reversed(one)]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return f"{path}[{min(len(one), len(other))}]"
            # Numbers and texts are looked at in place: a path for each would cost more.
            pairs = reversed(list(enumerate(zip(one, other, strict=True))))
            left += [(f"{path}[{at}]", mine, its) for at, (mine, its) in pairs if not alike(mine, its)]
        elif not alike(one, other):
            return path
    return None


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same at sight; never of objects and arrays, into which one has to look."""
    if isinstance(one, float) or isinstance(other, float):
        if type(one) not in NUMBERS or type(other) not in NUMBERS:
            return False
        try:
            return math.isclose(one, other, rel_tol=CLOSE, abs_tol=NOTHING) or (one != one and other != other)
        except OverflowError:  # a whole number beyond every float
            return False
    return type(one) is type(other) and not isinstance(one, dict | list) and bool(one == other)
