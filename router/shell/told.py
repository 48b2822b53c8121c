"""A deploy's events as lines of an endpoint's history."""

from __future__ import annotations

from typing import Any


def said(event: dict[str, Any]) -> tuple[str, str]:
    """Kind and text."""
    if event["event"] == "log":
        return "build", str(event["line"])
    return "deploy", f"{event['phase']}: {event['detail']}"
