"""A deploy's events, and those as lines of an endpoint's history."""

from __future__ import annotations

from typing import Any

SHOWN = 5  # packages named in a deploy's events


def said(event: dict[str, Any]) -> tuple[str, str]:
    """Kind and text."""
    if event["event"] == "log":
        return "build", str(event["line"])
    return "deploy", f"{event['phase']}: {event['detail']}"


def phase(name: str, detail: str) -> dict[str, Any]:
    return {"event": "phase", "phase": name, "detail": detail}


def shortened(requirements: tuple[str, ...]) -> str:
    if len(requirements) > SHOWN:
        return f"{len(requirements)} packages"
    return ", ".join(requirements) or "the platform's own"
