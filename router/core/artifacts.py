"""What was pushed: repositories of bentos and of models, and their versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torpor.errors import BadRequest, InvalidService

PART = re.compile(r"[a-z0-9A-Z](?:[a-z0-9A-Z._-]{0,126}[a-z0-9A-Z])?")  # of a tag: its name, or its version

Labels = tuple[dict[str, str], ...]  # {key, value}


class Kind(StrEnum):
    """What a repository holds."""

    BENTO = "bento"
    MODEL = "model"


class Status(StrEnum):
    """Of an upload."""

    PENDING = "pending"
    UPLOADING = "uploading"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Repository:
    """All versions of one name. Instants in seconds since the epoch."""

    kind: Kind
    name: str
    uid: str
    description: str
    labels: Labels
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of a bento or a model. Its bytes are a tar, which lies in the depot under its digest."""

    kind: Kind
    name: str
    version: str
    uid: str
    description: str
    manifest: dict[str, Any]
    labels: Labels
    build_at: str | None  # as the client wrote it
    created_at: float
    updated_at: float
    status: Status = Status.PENDING
    reason: str = ""  # why it failed
    digest: str | None = None  # SHA-256 of the tar in hex, once it came whole; None for what has no bytes
    size: int | None = None  # bytes of the tar
    upload: dict[str, Any] | None = None  # of what is under way: see router/shell/repositories.py

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def whole(self) -> bool:
        """Whether its bytes are in the depot."""
        return self.digest is not None

    @property
    def elsewhere(self) -> bool:
        """A model that a registry of others has: it is registered without its bytes."""
        metadata = self.manifest.get("metadata")
        return self.kind is Kind.MODEL and isinstance(metadata, dict) and metadata.get("registry") == "huggingface"


def split_tag(tag: str, what: str = "bento") -> tuple[str, str]:
    """Name and version. Raises BadRequest for what is no tag."""
    name, _, version = tag.partition(":")
    if not PART.fullmatch(name) or not PART.fullmatch(version):
        raise BadRequest(f"{tag!r} is not a {what}'s tag\nuse name:version")
    return name, version


def listed_models(manifest: Mapping[str, Any]) -> dict[str, bool]:
    """The models of a `bento.yaml`, those of its services too: tag -> whether another registry has them.

    Raises InvalidService for a list that BentoML does not write.
    """
    found: dict[str, bool] = {}
    try:
        for part in (manifest, *(manifest.get("services") or ())):
            for model in part.get("models") or ():
                known = isinstance(model, str)
                tag = str(model if known else model["tag"])
                found.setdefault(tag, not known and model.get("registry") == "huggingface")
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidService(f"the bento has a broken bento.yaml: {error!r}\nbuild it again") from None
    return found
