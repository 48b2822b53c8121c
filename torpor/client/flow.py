"""What the clients do, without a connection: generators that yield requests and are sent the answers.

The sync and the async client drive the same flows, so they cannot come to differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torpor.errors import CallTimeout, TorporError, TryLater, from_body
from torpor.wire import API

T = TypeVar("T")

RETRY_FIRST = 0.2  # seconds; doubles, where the answer names no time
RETRY_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `within`: seconds until its answer must be there."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    form: tuple[dict[str, str], list[tuple[str, tuple[str, bytes]]]] | None = None
    within: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    media_type: str
    content: bytes
    retry_after: float | None
    body: Any  # parsed, where it is JSON


Flow = Generator[Ask | Wait, Answer, T]


def control(method: str, path: str, **rest: Any) -> Flow[Any]:
    """A call of the control plane: its JSON. Raises the error that it answers."""
    answer = yield Ask(method, API + path, **rest)
    return checked(answer).body


def checked(answer: Answer) -> Answer:
    if answer.status >= 400:
        raise error_of(answer)
    return answer


def error_of(answer: Answer) -> TorporError:
    return from_body(answer.status, answer.body, answer.retry_after)


def patient(ask: Callable[[float], Ask], within: float) -> Flow[Answer]:
    """Asks until it is answered with something else than "try later", for `within` seconds in all.

    Only what surely did not run is asked again. Raises what the last answer said.
    """
    deadline = time.monotonic() + within
    pause = RETRY_FIRST
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CallTimeout(f"no answer within {within:g} s\nallow a longer answer_within")
        answer = yield ask(left)
        if answer.status < 400:
            return answer
        error = error_of(answer)
        wait = error.retry_after if error.retry_after is not None else pause
        if not isinstance(error, TryLater) or time.monotonic() + wait > deadline:
            raise error
        yield Wait(wait)
        pause = min(RETRY_MAX, pause * 2)
