"""Whose containers are whose: the platform's id, and the end of containers that nobody owns."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container
from pathlib import Path
from secrets import token_hex
from typing import Any

from router.disk import disk
from router.launch.container.api import ContainerApi
from router.launch.container.spec import PLATFORM
from torpor.errors import TorporError

log = logging.getLogger("torpor.launcher")


class Platform:
    """`folder`: the data folder, whose id labels its containers: platforms of one engine leave each other's alone."""

    def __init__(self, folder: Path, api: ContainerApi) -> None:
        self._path = folder / "platform"
        self._used = folder / "containers"  # is there once it has had one
        self._api = api
        self._id = ""

    def id(self) -> str:
        """Made, and written down, when it is first asked for. Raises DiskFull."""
        if not self._id:
            self._id = self._read() or self._make()
        return self._id

    def used(self) -> None:
        """It is about to have a container. Raises DiskFull."""
        with disk(self._used.parent):
            self._used.touch()

    async def reap(self, owned: Container[str]) -> list[str]:
        """Removes this platform's containers but those that are `owned`, by their names without the prefix.

        The names of those removed. `owned` is asked again for each: one may be made meanwhile. A platform that never
        had a container asks no engine.
        """
        if not self._used.exists():
            return []
        prefix, gone = f"torpor-{self.id()}-", []
        found: list[dict[str, Any]] = []
        with contextlib.suppress(TorporError):  # tried again in a minute
            found = await self._api.labelled(f"{PLATFORM}={self.id()}")
        for each in found:
            name = (each.get("Names") or [""])[0].lstrip("/")
            if name.removeprefix(prefix) in owned:
                continue
            try:
                await self._api.remove(each["Id"])
                gone.append(name)
            except TorporError as error:  # no reason to leave the others
                log.warning("container %s: %s", name, str(error).partition("\n")[0])
        if gone:
            log.warning("removed %d containers that no replica owns: %s", len(gone), ", ".join(gone))
        return gone

    def _read(self) -> str:
        try:
            return self._path.read_text().strip()
        except OSError:
            return ""

    def _make(self) -> str:
        made = token_hex(4)
        with disk(self._path.parent):
            part = self._path.with_suffix(".part")
            part.write_text(made + "\n")
            part.rename(self._path)
        return made
