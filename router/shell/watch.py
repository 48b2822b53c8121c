"""Watches canaries whose rule says so: rolls back what fails or is slow, promotes what was clean for a window."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskGroup

from router.core.catalog import Catalog
from router.core.split import KINDS, Rule, Variant, line_of
from router.core.verdict import KEEP, PROMOTE, Bounds, Counts, Verdict, Window
from router.proxy.tally import ANSWER, LEFT, Tallies
from router.shell.request import Tell
from torpor.errors import Conflict, TorporError

log = logging.getLogger("torpor.watch")

EVERY: Final = 2.0  # seconds between two looks

Key = tuple[str, int, int]  # line, its revision, the live revision: another of these is another comparison


class Changes(Protocol):
    """What a verdict does: the deploys."""

    async def vary(self, name: str, variant: str, rule: Rule | None) -> None: ...

    async def promote(self, name: str, variant: str, tell: Tell) -> None: ...


class Watch:
    """`note` takes what belongs in an endpoint's history: name, kind, text. `clock` gives seconds."""

    def __init__(
        self,
        catalog: Catalog,
        changes: Changes,
        tallies: Tallies,
        note: Callable[[str, str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._changes = changes
        self._tallies = tallies
        self._note = note
        self._clock = clock
        self._windows: dict[Key, Window] = {}
        self._acting: set[str] = set()  # endpoints
        self._hopeless: set[Key] = set()  # could not be promoted

    async def run(self) -> None:
        """Until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(EVERY)
                self.look(tasks)

    def look(self, tasks: TaskGroup) -> None:
        """Judges every canary that is watched; what follows runs in `tasks`, one change of an endpoint at a time."""
        watched = dict(self._watched())
        self._windows = {key: window for key, window in self._windows.items() if key in watched}
        self._hopeless &= watched.keys()
        for key, (name, variant) in watched.items():
            bounds, window = Bounds.of(variant.rule.watch), self._windows.get(key)
            if window is None or window.bounds != bounds:
                window = self._windows[key] = Window(bounds, ANSWER)
            verdict = window.look(self._clock(), counts(self._tallies, name), counts(self._tallies, key[0]))
            idle = verdict.what == KEEP or (verdict.what == PROMOTE and key in self._hopeless)
            if not idle and name not in self._acting:
                self._acting.add(name)
                tasks.start_soon(self._act, key, name, variant, verdict)

    def _watched(self) -> Iterator[tuple[Key, tuple[str, Variant]]]:
        for name, variants in self._catalog.variants.items():
            for each in variants:
                if each.rule.watch and each.rule.weight and each.rule.kind in KINDS:
                    live = self._catalog.named(name).revision
                    yield (line_of(name, each.name), each.revision, live), (name, each)

    async def _act(self, key: Key, name: str, variant: Variant, verdict: Verdict) -> None:
        """A change that is under way goes first: the next look judges anew."""
        try:
            if dict(self._watched()).get(key) != (name, variant):
                return
            if verdict.what == PROMOTE:
                await self._promote(key, name, variant, verdict.reason)
            else:
                await self._changes.vary(name, variant.name, dataclasses.replace(variant.rule, weight=0))
                text = f"{variant.name}, revision {variant.revision}, gets no calls any more\n{verdict.reason}"
                log.warning("endpoint %s: canary rolled back: %s", name, verdict.reason)
                self._note(name, "canary_rolled_back", text)
        except Conflict:
            pass
        except TorporError as error:
            log.warning("endpoint %s: %s of %s failed: %s", name, verdict.what, variant.name, error.message)
        finally:
            self._acting.discard(name)

    async def _promote(self, key: Key, name: str, variant: Variant, reason: str) -> None:
        try:
            await self._changes.promote(name, variant.name, unheard)
        except Conflict:
            raise
        except TorporError as error:
            self._hopeless.add(key)
            live = self._catalog.named(name).revision
            self._note(name, "promotion_failed", f"{error.message}\nrevision {live} goes on serving")
            raise
        self._note(name, "promoted", f"revision {variant.revision} of {variant.name} is live\n{reason}")


def unheard(event: dict[str, Any]) -> None:
    """Nobody listens to the phases of a promotion that nobody asked for."""


def counts(tallies: Tallies, line: str) -> Counts:
    """A caller who left is no call: whose fault that was is unknown."""
    tally = tallies.of(line)
    errors = sum(count for code, count in tally.codes.items() if code >= 500)
    calls = sum(count for code, count in tally.codes.items() if code != LEFT)
    return Counts(calls, errors + tally.broken, tuple(tally.warm.counts))
