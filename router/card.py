"""The card of a bento or a model: the file at the top of its folder that says what the folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # bentoml brings it

from router.core.artifacts import Kind
from torpor.errors import InvalidService


def card(kind: Kind) -> str:
    """The file at the top that says what the folder is."""
    return f"{kind}.yaml"


def read_card(folder: Path, kind: Kind) -> dict[str, Any]:
    """What the folder of a bento or a model says of itself. Blocks. Raises InvalidService."""
    try:
        return parsed((folder / card(kind)).read_bytes(), kind)
    except OSError as error:
        raise _unreadable(kind, error) from None


def parsed(text: bytes, kind: Kind) -> dict[str, Any]:
    """Raises InvalidService."""
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(kind, error) from None
    if not isinstance(found, dict) or (kind is Kind.BENTO and not isinstance(found.get("service"), str)):
        names = "names no service" if kind is Kind.BENTO else "says nothing"
        raise InvalidService(f"the {kind}'s {card(kind)} {names}\nbuild it again")
    return found


def _unreadable(kind: Kind, error: Exception) -> InvalidService:
    reason = str(error).replace("\n", " ")
    return InvalidService(f"the {kind} has no readable {card(kind)}: {reason}\nbuild it again")
