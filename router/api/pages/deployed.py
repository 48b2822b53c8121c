"""What the pages tell of deployments: gathered from the parts that know it, nothing but values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from router.api.pages.curl import Example, examples
from router.api.pages.words import counted
from router.api.revisions import share
from router.api.views import Views, state_of
from router.core.catalog import Registered, Revision
from router.core.split import KINDS, WHOLE, Rule, Variant, line_of
from router.launch.logs import Logs
from router.shell.deployments import Deployments, Status
from router.shell.engine import Engine
from torpor.wire import EndpointState, EndpointView, State, VariantView

EVENTS_MAX = 200  # shown, as lines of the history
REVISIONS_MAX = 50
LOG_LINES = 100
LISTED = 100  # deployments on one page of the list

BUSY = (EndpointState.WAKING, EndpointState.FALLING_ASLEEP)
TONES = {EndpointState.AWAKE: "good", EndpointState.FAILED: "bad", **dict.fromkeys(BUSY, "busy")}


class Archive(Protocol):
    """What was."""

    def revisions(self, name: str) -> list[Revision]:
        """Newest first. Blocks."""
        ...

    def history(self, endpoint: str) -> list[tuple[float, str, str]]:
        """(instant, kind, text), oldest first. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """A state in one word and one sentence. `tone`: good, bad, busy or quiet."""

    word: str
    tone: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One deployment of the list."""

    name: str
    condition: Condition
    bento: str
    revision: int
    failed: bool  # its last deploy, while another revision serves
    calls: int
    last_call_at: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """Events of one kind in a row: an installer's lines are one of them, with many texts."""

    at: float
    kind: str
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Made:
    """One revision. `marks`: what it is now, such as `live, 90 %`."""

    revision: Revision
    marks: list[str]


@dataclass(frozen=True, slots=True)
class Beside:
    """One variant. `gets`: its share of the calls, in words."""

    view: VariantView
    gets: str
    watched: str  # the bounds that it is held to, "" for none


@dataclass(frozen=True, slots=True)
class Now:
    """A deployment as it is. `under_way`: it is going to change by itself, in a moment."""

    name: str
    condition: Condition
    under_way: bool
    view: EndpointView | None  # None: none of its deploys has succeeded yet
    address: str | None
    asks: bool  # its callers for a token
    examples: list[Example]
    env: list[str]  # names: values may be secret
    fault: str | None
    installing: list[str]
    beside: list[Beside]
    copies: dict[str, int]  # to its shadow, empty where it has none


@dataclass(frozen=True, slots=True)
class Past:
    """What was of it. `older`: revisions that are not shown."""

    made: list[Made]
    older: int
    told: list[Told]
    log: list[str]


@dataclass(frozen=True, slots=True)
class Gathering:
    """The parts that know it. `copies`: what became of the calls that were copied to an endpoint's shadow."""

    deployments: Deployments
    engine: Engine
    views: Views
    archive: Archive
    logs: Logs
    copies: Callable[[str], dict[str, int]]

    def rows(self, start: int) -> tuple[list[Row], int]:
        """A page of the list, the youngest first, and how many there are in all."""
        names = self.deployments.names()
        return [self._row(name) for name in names[start : start + LISTED]], len(names)

    def now(self, name: str, asks_of: Callable[[str], bool]) -> Now:
        """`asks_of`: whether a call of an endpoint needs a token. Raises NotFound."""
        self.deployments.check_known(name)
        entry, progress = self.deployments.entry(name), self.deployments.under_way.get(name)
        view = self.views.endpoint(name) if entry is not None else None
        variants = view["variants"] if view else []
        settings = progress.request.settings if progress else entry.settings if entry else None
        address = self.views.address(name, settings.port) if settings else None
        on_air = name in self.deployments.catalog.endpoints
        asks = on_air and asks_of(name)
        fault = self.deployments.fault(name)
        return Now(
            name=name,
            condition=self._condition(name),
            under_way=progress is not None or self._moves(name),
            view=view,
            address=address,
            asks=asks,
            examples=examples(entry.learned.schema, address, asks) if entry and address and on_air else [],
            env=sorted(entry.env) if entry else [],
            fault=fault.text if fault is not None and progress is None else None,
            installing=list(progress.lines)[-LOG_LINES:] if progress else [],
            beside=[beside(each) for each in variants],
            copies=self.copies(name) if any(each["rule"]["kind"] == "shadow" for each in variants) else {},
        )

    def past(self, name: str, live: Registered | None, variants: Sequence[Variant]) -> Past:
        """Blocks. `live` and `variants`: those of now, by which its revisions are marked."""
        revisions = self.archive.revisions(name)
        return Past(
            made=[Made(each, marks(each.number, live, variants)) for each in revisions[:REVISIONS_MAX]],
            older=max(0, len(revisions) - REVISIONS_MAX),
            told=grouped(self.archive.history(name)),
            log=self.logs.tail(name, LOG_LINES),
        )

    def _row(self, name: str) -> Row:
        entry, progress = self.deployments.entry(name), self.deployments.under_way.get(name)
        fault = self.deployments.faults.get(name)
        asked = progress.body if progress else fault.asked["body"] if fault else {}
        view = self.views.endpoint(name) if entry is not None else None
        return Row(
            name=name,
            condition=self._condition(name),
            bento=view["bento"] if view else str(asked.get("bento", "")),
            revision=view["revision"] if view else 0,
            failed=view is not None and progress is None and self.deployments.fault(name) is not None,
            calls=view["calls"] if view else 0,
            last_call_at=view["last_call_at"] if view else None,
        )

    def _condition(self, name: str) -> Condition:
        """1 a deploy under way, 2 none that ever succeeded, 3 the endpoint's own."""
        entry, progress = self.deployments.entry(name), self.deployments.under_way.get(name)
        goes_on = f" Revision {entry.revision} goes on serving." if entry and not entry.terminated else ""
        if progress is not None:  # 1
            building = progress.status is Status.BUILDING
            what = "The environment of" if building else "A revision of"
            sentence = f"{what} {progress.request.bento} is being made ready.{goes_on}"
            return Condition("building" if building else "deploying", "busy", sentence)
        if entry is None:  # 2
            status = self.deployments.status(name)
            word = "terminated" if status is Status.TERMINATED else "failed"
            return Condition(word, "bad", "No deploy of it has succeeded yet.")
        line = self.engine.schedule.lines.get(name)
        state = EndpointState.TERMINATED if entry.terminated else EndpointState(state_of(line))  # 3
        ready = sum(each.state is State.READY for each in line.replicas.values()) if line else 0
        wakes = "wakes one"
        if line is not None and line.paused() is not None:
            wakes = "lets the one go on that is frozen"
        elif line is not None and line.template is not None:
            wakes = "wakes one from a template"
        sentences = {
            EndpointState.AWAKE: f"{counted(ready, 'replica')} ready to answer.",
            EndpointState.WAKING: "A replica starts; calls wait for it.",
            EndpointState.ASLEEP: f"No replica runs; the next call {wakes}.",
            EndpointState.FALLING_ASLEEP: "Its last replica ends what it runs.",
            EndpointState.FAILED: "Its last start failed; the next call tries again.",
            EndpointState.TERMINATED: f"It is off the air, and kept: torpor start {name} puts it back.",
        }
        return Condition(str(state), TONES.get(state, "quiet"), sentences[state])

    def _moves(self, name: str) -> bool:
        """Whether calls run or wait, or a replica or template of it, or of what is beside it, comes or goes."""
        names = (name, *(line_of(name, each.name) for each in self.engine.catalog.variants.get(name, ())))
        lines = [line for each in names if (line := self.engine.schedule.lines.get(each)) is not None]
        still = (State.READY, State.PAUSED, State.STOPPED)
        return any(
            line.parked
            or (line.template is not None and not line.template.kept)
            or any(each.trial or each.in_flight or each.state not in still for each in line.replicas.values())
            for line in lines
        )


def beside(view: VariantView) -> Beside:
    watch = view["rule"].get("watch", {})
    return Beside(view, share(Rule(**view["rule"])), ", ".join(f"{key} {value}" for key, value in watch.items()))


def marks(number: int, live: Registered | None, variants: Sequence[Variant]) -> list[str]:
    """What a revision is now, with its share of the calls where they are shared out."""
    sharing = sum(each.rule.weight for each in variants if each.rule.kind in KINDS)
    found = []
    if live is not None and number == live.revision:
        found.append("terminated" if live.terminated else f"live, {WHOLE - sharing} %" if sharing else "live")
    for each in variants:
        if each.revision == number:
            what = "" if each.rule.kind == "address" else f", {each.rule.weight} %"
            shadow = " in the shadow" if each.rule.kind == "shadow" else ""
            found.append(f"{each.name}{shadow}{what}")
    return found


def grouped(history: Sequence[tuple[float, str, str]]) -> list[Told]:
    """The last events, newest first; an installer's lines are one of them, from its first line on."""
    found: list[Told] = []
    for kind, lines in groupby(history, key=lambda each: each[1]):
        found.extend(told(kind, list(lines)))
    return found[-EVENTS_MAX:][::-1]


def told(kind: str, lines: list[tuple[float, str, str]]) -> Iterator[Told]:
    if kind == "build":
        yield Told(lines[0][0], kind, [text for _, _, text in lines][-LOG_LINES:])
    else:
        yield from (Told(at, kind, [text]) for at, _, text in lines)
