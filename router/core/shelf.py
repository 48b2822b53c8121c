"""Templates: loaded processes that wait beside a sleeping endpoint, so that it wakes by a fork of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from router.core import events as ev
from router.core.effects import Drop, Keep, Note
from router.core.line import Line, Template

if TYPE_CHECKING:
    from router.core.schedule import Schedule

LOADED = ("template", "fork")  # rungs that are a process or a container of its own
GUESS = 32 << 20  # bytes that a template is taken to need until one was measured


class Shelf:
    """Which endpoints keep a template. `name` gives ids that are never given twice."""

    def __init__(self, schedule: Schedule, name: Callable[[str, int], str]) -> None:
        self._s = schedule
        self._name = name
        self.templates: dict[str, Template] = {}

    def keep(self, line: Line, now: float) -> None:
        """Has a template made where the endpoint may have one, has none, and the memory is there."""
        if line.revision is None or line.removed or self._s.closing or line.settings.rung not in LOADED:
            return None
        if line.template is not None:
            return self._used(line.template, now)
        if line.no_template is not None or line.error is not None:
            line.bare = "" if line.error is None else "its last start failed"
            return None
        if not self._s.room.spare(GUESS):
            line.bare = "no memory was left for its template"
            return None
        line.bare = ""
        template = Template(self._name(line.name, line.revision), line.name, line.revision, now)
        line.template = self.templates[template.id] = template
        self._s.emit(Keep(template.id, line.name, line.revision))
        return None

    def drop(self, line: Line, why: str = "its revision is not live any more") -> None:
        """Gives the endpoint's template up; its memory is there once Unkept has come."""
        template, line.template = line.template, None
        if template is not None and not template.ending:
            template.ending = True
            line.bare = f"its template went: {why}"
            self._s.not_due("keep", template.id)
            self._s.emit(Note(line.name, "dropped", f"template {template.id} goes: {why}", template.id))
            self._s.emit(Drop(template.id))

    def kept(self, e: ev.Kept, now: float) -> None:
        template = self.templates[e.template]
        took = now - template.used_at
        template.kept, template.memory, template.since = True, e.memory, now
        if not template.ending:
            self._used(template, now)
        text = f"template {template.id} is kept: loaded in {took:.3f} s"
        self._s.emit(Note(template.endpoint, "kept", text, template.id, took))

    def _used(self, template: Template, now: float) -> None:
        template.used_at = now
        keep_for = self._s.lines[template.endpoint].settings.keep_for
        if keep_for and template.kept:
            self._s.due("keep", template.id, now + keep_for)

    def unused(self, name: str, now: float) -> None:
        """It was made, or its endpoint fell asleep, `keep_for` ago: it goes, unless it was used since."""
        template = self.templates[name]
        line = self._s.lines[template.endpoint]
        used_at = now if line.alive() else max(template.used_at, line.last_call or 0.0)
        if used_at + line.settings.keep_for > now:
            return self._s.due("keep", name, used_at + line.settings.keep_for)
        return self.drop(line, f"it was not needed for {now - used_at:.0f} s (keep_for)")

    def unkept(self, e: ev.Unkept, now: float) -> None:
        template = self.templates.pop(e.template)
        self._s.not_due("keep", template.id)
        line = self._s.lines.get(template.endpoint)
        if line is None or line.revision != template.revision or line.removed:
            return
        line.ended_at = now
        if line.template is template:
            line.template = None
            if e.reason is None:
                line.bare = "its template died"
                self._s.emit(Note(line.name, "lost", f"template {template.id} died", template.id))
        if e.reason is not None:
            line.no_template = e.reason
            self._s.emit(
                Note(line.name, "no_template", f"it keeps no template, and sleeps deep: {e.reason}", template.id)
            )
