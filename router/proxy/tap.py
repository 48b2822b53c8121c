"""What is kept of a call of which a copy goes to a shadow: the request as its replica got it, and the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from router.proxy.calls import Target
    from router.proxy.exchange import Exchange

_END: Final = b"\r\n\r\n"
KEPT_MAX: Final = 1 << 20  # bytes: of a request's body that is copied, and of an answer that is compared


class Answer:
    """A status and the body's first KEPT_MAX bytes; `whole`: these are all."""

    __slots__ = ("_left", "_pieces", "status", "whole")

    def __init__(self, status: int) -> None:
        self.status = status
        self.whole = True
        self._pieces: list[bytes] = []
        self._left = KEPT_MAX

    def add(self, data: bytes) -> None:
        if len(data) > self._left:
            data = data[: self._left]
            self.whole = False
        if data:
            self._left -= len(data)
            self._pieces.append(data)

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)


class Tap:
    """Listens to one exchange; `over` is told once its answer has come whole, and never where it does not."""

    __slots__ = ("_over", "_sent", "answer", "exchange", "large", "line", "request")

    def __init__(self, exchange: Exchange, line: str, over: Callable[[Tap], None]) -> None:
        self.exchange = exchange
        self.line = line  # the shadow's
        self.request: list[bytes] = []  # head and body, as they were written to the replica
        self.answer = Answer(0)
        self.large = False  # the request is longer than what is copied
        self._sent = 0  # bytes of the body, in its coding
        self._over = over

    def forwarded(self, sent: list[bytes]) -> None:
        """All that has come of the request goes to a replica; a call that is sent again begins anew."""
        self.request, self._sent = [], -len(sent[0].partition(_END)[0] + _END)
        for data in sent:
            self.more(data)

    def more(self, data: bytes) -> None:
        self._sent += len(data)
        if self._sent > KEPT_MAX:
            self.large = True
            self.request.clear()
        elif not self.large:
            self.request.append(data)

    def answered(self, status: int, body: bytes = b"") -> None:
        """The answer's head has come, and what came with it of its body."""
        self.answer = Answer(status)
        self.answer.add(body)

    def ended(self) -> None:
        """The answer has come whole, and was written to the caller."""
        self.exchange.tap = None
        if self.exchange.complete and self.answer.status:
            self._over(self)


class Taps(Protocol):
    """Who wants copies. A proxy without one looks at nothing."""

    def tap(self, exchange: Exchange, target: Target) -> Tap | None:
        """Of a call to an endpoint that has several versions; None: no copy of it is wanted."""
        ...

    def forget(self, endpoint: str) -> None: ...
