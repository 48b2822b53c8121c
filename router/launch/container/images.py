"""Images: those that replicas' containers are made of, built from bentos or given, and those that can go."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import anyio

from router.disk import disk, full, says_full
from router.launch.container.api import ContainerApi
from router.launch.container.containerfile import (
    BASE,
    BENTO,
    KEY,
    PLATFORM,
    Files,
    Ground,
    Recipe,
    base_of,
    divided,
    dockerfile_of,
    labels,
    onto,
    pack,
    recipe,
)
from router.launch.container.flights import Flights, Tell
from router.launch.container.given import completion, completion_key, look
from router.shell.request import Needs
from torpor.errors import EngineFailed, InvalidService, TorporError

GROUND, BUILT, COMPLETED = "torpor-ground", "torpor-bento", "torpor-given"  # the repositories of their tags
LAST_LINES = 8
STEP = re.compile(r"STEP \d+/\d+ ?: ", re.IGNORECASE)
SPOOLED = "image-"  # what the files of a build in the spool begin with
ENGINE = Path("the container engine")


@dataclass(frozen=True, slots=True)
class Image:
    """One that can go. `name`: its tag, or its id where it has none. `size`: bytes above what it was built on."""

    name: str
    size: int


class BuildFailed(Exception):
    """Its text is the last lines."""


class Images:
    """`network`: of the builds' steps, None for the engine's own. `spool`: where contexts are packed for a build."""

    def __init__(self, api: ContainerApi, platform: str, network: str | None, spool: Path) -> None:
        self._api = api
        self._platform = platform
        self._network = network
        self._spool = spool
        self._flights = Flights()
        self._building = 0
        self._complete: set[str] = set()  # the ids of given images in which nothing is missing
        self._asked: dict[str, float] = {}  # when an image was last asked for, by its key

    async def of(self, needs: Needs, given: str, tell: Callable[[str], None]) -> str:
        """The id of the image that runs a bento, made or pulled first where it is not there. Its `python` runs it.

        `given`: the reference of an image to take instead of one built from the bento. `tell` hears the engine's lines.
        Who asks while another has the same made waits for it, and a caller who leaves stops it for nobody. Raises
        InvalidService with the last lines of what failed, DiskFull, EngineUnreachable or EngineFailed.
        """
        if given:
            return await self._given(given, tell)
        wanted = await asyncio.to_thread(recipe, needs.bento, self._platform)
        return await self._made(BUILT, wanted.key, partial(self._build, wanted), tell)

    async def key(self, bento: Path) -> str:
        """Of the image that is built from a bento: nothing is built. Raises InvalidService."""
        return (await asyncio.to_thread(recipe, bento, self._platform)).key

    async def key_of_given(self, given: str) -> str:
        """Of what completes a given image; "" for one that the engine does not have."""
        found = await self._api.image(given)
        return completion_key(bare(found), self._platform) if found else ""

    async def unused(self, in_use: set[str], before: float) -> list[Image]:
        """This platform's that nothing uses, made and last asked for `before`, in seconds since the epoch.

        `in_use`: keys, and tags of bentos.
        """
        found = await self._api.images(f"{PLATFORM}={self._platform}")
        going = [each for each in found if self._idle(each, in_use, before)]
        kept = {_label(each, BASE) for each in found if finished(each) and each not in going}  # grounds
        shown = [await self._shown(each) for each in going if bare(each) not in kept]
        return sorted(shown, key=lambda image: image.name)  # a ground goes after what is on it

    def _idle(self, image: Mapping[str, Any], in_use: set[str], before: float) -> bool:
        used = not in_use.isdisjoint({_label(image, KEY), _label(image, BENTO)})
        at = max(float(image.get("Created") or 0), self._asked.get(_label(image, KEY), 0.0))
        return (layer(image) or finished(image)) and not used and at < before

    async def _shown(self, image: Mapping[str, Any]) -> Image:
        base = await self._api.image(_label(image, BASE)) if _label(image, BASE) else None
        size = int(image.get("Size") or 0) - int((base or {}).get("Size") or 0)
        return Image(next(iter(tags(image)), bare(image)).rpartition("/")[2], max(0, size))

    async def remove(self, name: str) -> bool:
        """Whether it went: one that a container is made of stays."""
        return await self._api.remove_image(name)

    async def _made(self, kind: str, key: str, make: Callable[[str, Tell], Any], tell: Tell) -> str:
        """`make` is called with the tag."""
        self._asked[key] = time.time()
        tag = f"{kind}:{key}"
        found = await self._api.image(tag)
        return bare(found) if found else await self._flights.join(tag, partial(make, tag), tell)

    # From a bento

    async def _build(self, wanted: Recipe, tag: str, tell: Tell) -> str:
        tell(f"making an image for bento {wanted.tag}: {tag}")
        text = await dockerfile_of(wanted)
        base = base_of(text)
        ground, rest = divided(wanted, text)
        try:
            if ground is not None:
                base = await self._made(GROUND, ground.key, partial(self._lay, ground, base), tell)
                text = onto(wanted, base, rest)
            text += labels({KEY: wanted.key, BENTO: wanted.tag, BASE: base})
            return await self._run(tag, text, wanted.files, tell)
        except BuildFailed as failed:
            raise InvalidService(
                f"the image of bento {wanted.tag} cannot be built: {failed}\n"
                "mend the bento's packages, or the commands of its image"
            ) from failed

    async def _lay(self, ground: Ground, base: str, tag: str, tell: Tell) -> str:
        return await self._run(tag, ground.text + labels({KEY: ground.key, BASE: base}), ground.files, tell)

    # Given ones

    async def _given(self, given: str, tell: Tell) -> str:
        found = await self._api.image(given)
        if found is None:
            await self._flights.join(f"pull {given}", partial(self._pull, given), tell)
            found = await self._api.image(given)
        if found is None:
            raise EngineFailed(f"the container engine pulled {given}, and does not have it\nsee its log")
        image = bare(found)
        if image in self._complete:
            return image
        user = str((found.get("Config") or {}).get("User") or "")
        make = partial(self._completed, given, image, user)
        return await self._made(COMPLETED, completion_key(image, self._platform), make, tell)

    async def _pull(self, given: str, tell: Tell) -> str:
        tell(f"pulling the image {given}")
        try:
            async for line in self._api.pull(given):
                tell(line)
        except EngineFailed as error:
            raise InvalidService(
                f"the image {given} cannot be pulled: {words(error)}\n"
                "name one that the engine has or may pull; a private registry wants the engine logged in"
            ) from error
        return given

    async def _completed(self, given: str, image: str, user: str, tag: str, tell: Tell) -> str:
        tell(f"looking into the image {given}")
        found = await look(self._api, image, given, self._platform)
        if found.complete:
            self._complete.add(image)
            return image
        tell(f"adding to the image {given}: {', '.join(found.missing) or 'its Python as python'}")
        try:
            return await self._run(tag, completion(image, user, found, self._platform), (), tell)
        except BuildFailed as failed:
            raise InvalidService(
                f"the image {given} lacks {', '.join(found.missing)}, which cannot be installed in it: {failed}\n"
                "install it in the image"
            ) from failed

    # Builds

    async def _run(self, tag: str, text: str, files: Files, tell: Tell) -> str:
        """The id of what was built. Raises BuildFailed; nothing half made is left."""
        lines: deque[str] = deque(maxlen=LAST_LINES)
        place = self._spool / f"{SPOOLED}{token_hex(8)}.tar"
        self._building += 1
        try:
            with disk(self._spool):
                await asyncio.to_thread(self._pack, text, files, place)
            async for line in self._api.build(place, tag, self._network):
                if STEP.match(line):  # the engine's own words name the one that failed
                    lines.clear()
                else:
                    lines.append(line)
                tell(line)
        except EngineFailed as error:
            if (reason := says_full(list(lines))) is not None:
                raise full(ENGINE, reason) from error
            raise BuildFailed(" | ".join([*lines, words(error)])) from error
        finally:
            self._building -= 1
            with anyio.CancelScope(shield=True):
                await asyncio.to_thread(place.unlink, missing_ok=True)
                await self._sweep()
        if (found := await self._api.image(tag)) is None:  # it went down in the midst, and is back
            raise EngineFailed(f"the container engine left off building the image {tag}\ntry again; see its log")
        return bare(found)

    def _pack(self, text: str, files: Files, place: Path) -> None:
        self._spool.mkdir(parents=True, exist_ok=True)
        if self._building == 1:
            for left in self._spool.glob(f"{SPOOLED}*"):  # by a router that was killed
                left.unlink(missing_ok=True)
        pack(text, files, place)

    async def _sweep(self) -> None:
        """The layers that failed builds left. Those of one under way look the same: while there is one, none goes."""
        with suppress(TorporError):  # an engine that is down keeps them until the next time
            for each in await self._api.images(f"{PLATFORM}={self._platform}"):
                if not self._building and layer(each):
                    await self._api.remove_image(bare(each))


def bare(image: Mapping[str, Any]) -> str:
    """Its id without the name of the digest."""
    return str(image["Id"]).removeprefix("sha256:")


def tags(image: Mapping[str, Any]) -> list[str]:
    return [str(tag) for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]


def _label(image: Mapping[str, Any], name: str) -> str:
    return str((image.get("Labels") or {}).get(name, ""))


def layer(image: Mapping[str, Any]) -> bool:
    """Whether it is what a build left half way: what finishes one is its key."""
    return not tags(image) and not _label(image, KEY)


def finished(image: Mapping[str, Any]) -> bool:
    """Not what somebody else built on one of ours, which has its labels."""
    named = [tag.rpartition(":")[0].rpartition("/")[2] in (GROUND, BUILT, COMPLETED) for tag in tags(image)]
    return bool(named) and all(named)


def words(error: EngineFailed) -> str:
    """The engine's own."""
    return str(error).partition("\n")[0].rpartition(", and says: ")[2]
