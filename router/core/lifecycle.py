"""A replica's life as a table: which move leads from which state to which.

    STOPPED --start--> STARTING --ready--> READY --drain--> DRAINING --stop--> STOPPING --exit--> STOPPED
                          |                  ^                 |
                          |                  +-----revoke------+      draining is revocable, stopping is not
                          +--stop--> STOPPING --ready--> STOPPING     a start that loses to a stop is still reaped

    READY --pause--> PAUSED --start--> STARTING     a replica that sleeps frozen wakes by a start of its own
                        +--stop--> STOPPING

An exit is possible in every state but STOPPED. A pair that is not in the table raises and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum

from torpor.wire import State


class Move(StrEnum):
    """What can happen to a replica's state."""

    START = "start"
    READY = "ready"
    PAUSE = "pause"
    DRAIN = "drain"
    REVOKE = "revoke"
    STOP = "stop"
    EXIT = "exit"


TABLE: dict[tuple[State, Move], State] = {
    (State.STOPPED, Move.START): State.STARTING,
    (State.STARTING, Move.READY): State.READY,
    (State.STARTING, Move.STOP): State.STOPPING,
    (State.STARTING, Move.EXIT): State.STOPPED,
    (State.READY, Move.PAUSE): State.PAUSED,
    (State.READY, Move.DRAIN): State.DRAINING,
    (State.READY, Move.EXIT): State.STOPPED,
    (State.PAUSED, Move.START): State.STARTING,
    (State.PAUSED, Move.STOP): State.STOPPING,
    (State.PAUSED, Move.EXIT): State.STOPPED,
    (State.DRAINING, Move.REVOKE): State.READY,
    (State.DRAINING, Move.STOP): State.STOPPING,
    (State.DRAINING, Move.EXIT): State.STOPPED,
    (State.STOPPING, Move.READY): State.STOPPING,
    (State.STOPPING, Move.EXIT): State.STOPPED,
}


class IllegalMove(Exception):
    """A move that the table does not know: a defect of the schedule or of a launcher, never of a caller."""


def moved(state: State, move: Move) -> State:
    """The state after `move`. Raises IllegalMove for a pair that the table does not hold."""
    try:
        return TABLE[state, move]
    except KeyError:
        raise IllegalMove(f"a replica that is {state} cannot {move}") from None
