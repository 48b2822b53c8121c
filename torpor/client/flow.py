"""What the clients do, without a connection: generators that yield requests and are sent the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, TypedDict, TypeVar

from torpor.errors import (
    BadAnswer,
    BadRequest,
    CallFailed,
    CallTimeout,
    EndpointNotFound,
    QueueFull,
    QueueTimeout,
    RateLimited,
    ShuttingDown,
    TorporError,
    from_body,
)
from torpor.wire import API, ENDPOINTS, NAME, RuleView

T = TypeVar("T")

RETRY_FIRST = 0.2  # seconds; doubles, where the answer names no time
RETRY_MAX = 10.0


class Upload(NamedTuple):
    """A file to send: its name, and where its content is. A path is opened anew for each try."""

    name: str
    source: Path | bytes | IO[bytes]


class Form(NamedTuple):
    """A multipart form: text fields, and files by field (a field may have several)."""

    fields: Mapping[str, str]
    files: list[tuple[str, Upload]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `within`: seconds until its answer must be there whole."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] | Upload | Form | None = None
    within: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `output` is the schema that it follows, where the transport knows better than the method."""

    status: int
    media_type: str
    content: bytes
    retry_after: float | None
    body: Any  # parsed, where it is JSON; of an error also text
    output: Mapping[str, Any] | None = None


Flow = Generator[Ask | Wait, Answer, T]
Tell = Callable[[str, str], None]  # hears a phase and its detail; of the phase "log", a line


class Deploy(TypedDict, total=False):
    """What a deploy may say beside what is deployed, and where.

    `env`: variables of the replicas. `settings`: see docs/config.md. `secrets`: names of secrets of the platform.
    `access`: whether callers need a token; None: as the platform asks. `variant`: leave the live revision as it is and
    put this one beside it, by `rule`; without one it has an address of its own. `tell` hears the phases.
    """

    env: Mapping[str, str]
    settings: Mapping[str, Any]
    secrets: Sequence[str]
    access: bool | None
    variant: str
    rule: RuleView | None
    tell: Tell


def unheard(phase: str, detail: str) -> None:
    """A `Tell` that nobody listens to."""


def deploy_body(name: str, bento: str, options: Deploy) -> dict[str, Any]:
    given = {key: value for key, value in options.items() if key != "tell"}
    return {"name": name, "bento": bento, **given}


def control(method: str, path: str, **rest: Any) -> Flow[Any]:
    """A call of the control plane: its JSON object. Raises the error that it answers."""
    answer = yield Ask(method, API + path, **rest)
    return checked(answer).body


def described(name: str) -> Flow[Any]:
    """An endpoint's schema: of its view, or, where that is not for this caller, as the endpoint tells it to whoever
    may call it. Raises what the view was refused with.
    """
    answer = yield Ask("GET", API + of(name))
    if answer.status in (401, 403):
        own = yield Ask("GET", f"{ENDPOINTS}/{name}/schema.json")
        if own.status == 200 and isinstance(own.body, dict):
            return own.body
    return checked(answer).body["schema"]


def of(name: str, rest: str = "") -> str:
    """The control plane's path of an endpoint, or of a variant as `<endpoint>~<variant>`.

    Raises EndpointNotFound for what can be no name.
    """
    if not all(NAME.fullmatch(part) for part in name.split("~", 1)):
        raise EndpointNotFound(f"no endpoint is called {name!r}\nsee `torpor ls` for those that are")
    return f"/endpoints/{name}{rest}"


def deployable(name: str) -> str:
    """The name of an endpoint to be. Raises BadRequest."""
    if not NAME.fullmatch(name):
        raise BadRequest(
            f"{name!r} cannot be an endpoint's name\n"
            "use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends"
        )
    return name


def checked(answer: Answer) -> Answer:
    """An answer of the control plane. Raises the error that it is, or BadAnswer where torpor does not speak so."""
    error = error_of(answer) if answer.status >= 400 else None
    if isinstance(error, CallFailed) or not isinstance(answer.body, dict):
        raise BadAnswer(
            f"what answers there is not torpor: {answer.status} {answer.media_type or 'without a media type'}\n"
            "set TORPOR_URL to the address that `torpor up` printed"
        )
    if error is not None:
        raise error
    return answer


def error_of(answer: Answer) -> TorporError:
    return from_body(answer.status, answer.body, answer.retry_after)


def patient(ask: Ask, within: float, own_patience: bool = False) -> Flow[Answer]:
    """Asks until it is answered with something else than "try later", for `within` seconds in all.

    Asked again is only what surely did not run, and only where waiting helps: not after a start that failed, not
    where the day's calls are over, and not after a wait as long as the caller's own `queue_within` (`own_patience`).
    Raises what the last answer said.
    """
    deadline = time.monotonic() + within
    pause = RETRY_FIRST
    again = (QueueFull, RateLimited, ShuttingDown, *(() if own_patience else (QueueTimeout,)))
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise late(within)
        answer = yield replace(ask, within=left)
        if answer.status < 400:
            return answer
        error = error_of(answer)
        wait = error.retry_after if error.retry_after is not None else pause
        over = error.detail.get("limit") == "quota" or time.monotonic() + wait > deadline
        if over or not isinstance(error, again):
            raise error
        yield Wait(wait)
        pause = min(RETRY_MAX, pause * 2)


def late(within: float) -> CallTimeout:
    return CallTimeout(f"no answer within {within:.3g} s\nallow a longer answer_within")
