"""What a command's exit code says: the class of the error that ended it."""

from __future__ import annotations

from torpor.errors import CallFailed, FixTheCall, GaveUp, NeverArrived, TorporError, TryLater

CODES: tuple[tuple[type[TorporError], int, str], ...] = (
    (FixTheCall, 3, "the call or what it names is wrong: the same again fails again"),
    (TryLater, 4, "nothing ran: wait, then try again"),
    (GaveUp, 5, "it may have run: the call failed, broke, or took too long"),
    (NeverArrived, 6, "no platform answers"),
)
USAGE = "Exit codes: 0 done; 2 wrong usage; " + "; ".join(f"{code} {text}" for _, code, text in CODES) + "; 130 Ctrl-C."


def exit_code(error: TorporError) -> int:
    """3 to 6; a call that the endpoint itself refuses with 4xx is the caller's to mend too."""
    if isinstance(error, CallFailed) and 400 <= error.status < 500:
        return 3
    return next((code for kind, code, _ in CODES if isinstance(error, kind)), 5)
