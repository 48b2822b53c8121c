"""What an endpoint's `access` comes to where it runs."""

from __future__ import annotations

LEFT = (
    "access: false, which opens an endpoint to everybody, is left to the platform off the loopback address, "
    "unless open_endpoints is set"
)


def effective(access: bool | None, opens: bool) -> bool | None:
    """Whether callers need a token, None: as the platform asks. `opens`: an endpoint may ask nobody here."""
    return None if access is False and not opens else access


def notes(access: bool | None, opens: bool) -> tuple[str, ...]:
    """What is to be told of it in the endpoint's events."""
    return () if effective(access, opens) is access else (LEFT,)
