"""The table of a replica's states."""

from __future__ import annotations

import pytest

from router.core.lifecycle import TABLE, IllegalMove, Move, moved
from torpor.wire import State


@pytest.mark.parametrize("move", Move)
@pytest.mark.parametrize("state", State)
def test_every_pair_is_decided_or_raises(state: State, move: Move) -> None:
    if (state, move) in TABLE:
        assert moved(state, move) is TABLE[state, move]
    else:
        with pytest.raises(IllegalMove, match=f"{state} cannot {move}"):
            moved(state, move)


def test_draining_is_revocable_and_stopping_is_not() -> None:
    assert moved(State.DRAINING, Move.REVOKE) is State.READY
    with pytest.raises(IllegalMove):
        moved(State.STOPPING, Move.REVOKE)


def test_an_exit_is_possible_wherever_a_process_may_run() -> None:
    for state in State:
        assert ((state, Move.EXIT) in TABLE) == (state is not State.STOPPED)
