"""Graphics cards: each belongs to one replica at a time, whole, and is free again when it is measured to be.

A process that is gone may have left memory behind for a while: the driver takes it back when it comes to it. So a card
whose replica has ended is handed on only when what is taken on it is what was taken before, processes aside that came
after the replica's end; or, with a note, after `CLEAR_WITHIN`, since then somebody else must have taken it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router.core.effects import Note
from router.core.events import Held
from router.core.line import Line, Replica
from router.core.refusals import mib

if TYPE_CHECKING:
    from router.core.schedule import Schedule

CLEAR_WITHIN = 30.0  # seconds from a replica's end until its cards are handed on in any case
SLACK = 64 << 20  # bytes that the driver itself may take more than before


@dataclass(slots=True)
class Card:
    """One card. `before`: what it held when it was handed out, and while nobody has it, what it holds."""

    id: str
    now: Held
    before: Held
    holder: str | None = None  # the replica that has it
    left: str | None = None  # the replica that had it, until its memory is measured to be free
    looked: bool = False  # since its end: the first look may have begun before it
    pids: set[int] = field(default_factory=set)  # of processes that came onto it while a replica had it
    endpoint: str = ""  # of either
    answers: bool = True  # at the last measurement

    @property
    def free(self) -> bool:
        return self.holder is None and self.left is None and self.answers

    def clear(self) -> bool:
        """Whether its memory is back. Processes that were there before may have taken more meanwhile."""
        if not self.looked:
            self.looked = True
            self.pids |= self.now.by_pid.keys() - self.before.by_pid.keys()
        others = sum(size for pid, size in self.now.by_pid.items() if pid not in self.pids)
        return self.now.used - others <= self.before.used - sum(self.before.by_pid.values()) + SLACK

    def has(self, size: int) -> bool:
        """Whether as many bytes are free on it; it is taken to, where nobody said how many it has."""
        return not self.now.total or self.now.total - self.now.used + SLACK >= size


class Cards:
    """All cards that can be handed out, by UUID, with what they hold."""

    def __init__(self, schedule: Schedule, held: Mapping[str, Held]) -> None:
        self._s = schedule
        self.all = {name: Card(name, now, now) for name, now in held.items()}

    def lack(self, line: Line, count: int) -> int:
        """Cards that are missing for a start of the endpoint."""
        return count - len(self._fit(line)) if count else 0

    def going(self) -> int:
        """Cards whose memory is awaited."""
        return sum(card.left is not None for card in self.all.values())

    def take(self, line: Line, replica: Replica) -> None:
        """Gives the replica as many as its settings say; `lack` was asked before."""
        cards = self._fit(line)[: replica.settings.gpu] if replica.settings.gpu else []
        for card in cards:
            card.holder, card.endpoint, card.looked = replica.id, line.name, False
            card.pids.clear()
        replica.cards = tuple(card.id for card in cards)

    def ended(self, replica: Replica, now: float) -> None:
        """The replica has exited."""
        for name in replica.cards:
            card = self.all[name]
            card.holder, card.left = None, replica.id
            self._s.due("card", name, now + CLEAR_WITHIN)
        replica.cards, replica.gpu_memory = (), 0

    def measured(self, held: Mapping[str, Held] | None) -> None:
        if held is None:
            return
        for card in self.all.values():
            card.answers = card.id in held
            card.now = held.get(card.id, card.now)
            if not card.answers:
                continue
            if card.holder is not None:
                card.pids |= card.now.by_pid.keys() - card.before.by_pid.keys()
            if card.left is not None and card.clear():
                card.left = None
                self._s.not_due("card", card.id)
            if card.free:
                card.before = card.now
        for replica in self._s.replicas.values():
            if replica.cards:
                self._charge(replica)

    def overdue(self, name: str) -> None:
        """Its memory was not measured to be free in time."""
        card = self.all[name]
        over = card.now.used - card.before.used
        text = f"GPU {name} has {mib(over)} more than before, {CLEAR_WITHIN:.0f} s after replica {card.left} has ended"
        self._s.emit(Note(card.endpoint, "unfreed", f"{text}: it is handed on", card.left, CLEAR_WITHIN))
        card.left = None

    def _fit(self, line: Line) -> list[Card]:
        return [card for card in self.all.values() if card.free and card.has(line.gpu_memory)]

    def of(self, replica: Replica) -> dict[str, int]:
        """Bytes that its cards hold above what was there before."""
        cards = (self.all[name] for name in replica.cards)
        return {card.id: max(0, card.now.used - card.before.used) for card in cards}

    def _charge(self, replica: Replica) -> None:
        """What it takes; the most of one card is what the next start needs."""
        sizes = self.of(replica).values()
        replica.gpu_memory = sum(sizes)
        line = self._s.lines[replica.endpoint]
        if replica.revision == line.revision:
            line.gpu_memory = max(line.gpu_memory, *sizes)
