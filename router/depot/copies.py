"""What was pushed, as folders of this machine: unpacked from the depot when it is asked for and not there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from router.core.artifacts import Artifact, Kind
from router.depot.depot import Depot
from router.depot.unpacked import Unpacked

Key = tuple[Kind, str, str]  # kind, name, version


class Rows(Protocol):
    """What is known of a version. Blocks."""

    def find(self, kind: Kind, name: str, version: str) -> Artifact | None: ...


class Copies:
    """Everything here blocks: it is asked from threads, when an endpoint is deployed or started."""

    def __init__(
        self,
        rows: Rows,
        depot: Depot,
        bentos: Unpacked,
        models: Unpacked,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows = rows
        self._depot = depot
        self._of = {Kind.BENTO: bentos, Kind.MODEL: models}
        self._clock = clock
        self._locks: WeakValueDictionary[Key, threading.Lock] = WeakValueDictionary()
        self.asked: dict[Key, float] = {}  # when each was last wanted: garbage collection leaves it for a while

    def open(self) -> None:
        for each in self._of.values():
            each.open()

    def of(self, kind: Kind) -> Unpacked:
        return self._of[kind]

    def find(self, kind: Kind, name: str, version: str) -> Path | None:
        """The folder; None for what was never here. Raises NotFound where the depot has lost it, or DiskFull."""
        key = (kind, name, version)
        with self._locks.setdefault(key, threading.Lock()):
            self.asked[key] = self._clock()
            unpacked = self._of[kind]
            artifact = self._rows.find(kind, name, version)
            if artifact is None or artifact.digest is None:
                return unpacked.find(name, version)
            if unpacked.digest(name, version) != artifact.digest:
                with (
                    self._depot.fetch(artifact.digest) as tar,
                    unpacked.part(tar, artifact.digest, name, version) as (part, _),
                ):
                    unpacked.publish(part, name, version)
            return unpacked.find(name, version)

    def drop(self, key: Key, before: float) -> bool:
        """Removes a copy that nobody has asked for since; whether it is gone."""
        with self._locks.setdefault(key, threading.Lock()):
            if self.asked.get(key, before) > before:
                return False
            self._of[key[0]].remove(*key[1:])
            self.asked.pop(key, None)
            return True
