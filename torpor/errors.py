"""The error tree: every failure a caller, an operator or the SDK can meet.

    TorporError
    ├── FixTheCall            the same call again fails again
    │   ├── BadRequest        400 bad_request
    │   ├── Unauthorized      401 unauthorized
    │   ├── Forbidden         403 forbidden
    │   ├── EndpointNotFound  404 endpoint_not_found
    │   ├── NotFound          404 not_found
    │   ├── Conflict          409 conflict
    │   ├── BodyTooLarge      413 body_too_large
    │   ├── HeadersTooLarge   431 headers_too_large
    │   ├── InvalidService    422 invalid_service
    │   ├── InvalidConfig     422 invalid_config
    │   ├── ModelNotFound     422 model_not_found
    │   ├── ProviderMissing   422 provider_missing
    │   └── ExportRefused     422 export_refused
    ├── TryLater              wait, then retry
    │   ├── QueueFull         429 queue_full
    │   ├── RateLimited       429 rate_limited
    │   ├── StartFailed       503 start_failed
    │   ├── StartTimeout      503 start_timeout
    │   ├── QueueTimeout      503 queue_timeout
    │   ├── NoRoom            503 no_room
    │   ├── DiskFull          507 disk_full
    │   ├── Overloaded        503 overloaded
    │   ├── EngineUnreachable  503 engine_unreachable
    │   ├── EngineFailed      503 engine_failed
    │   └── ShuttingDown      503 shutting_down
    ├── GaveUp                it may have run; retry only what may run twice
    │   ├── InternalError     500 internal_error
    │   ├── ReplicaDied       502 replica_died
    │   ├── BadAnswer         502 bad_answer
    │   ├── CallFailed        (the endpoint's own 4xx or 5xx, status as answered) call_failed
    │   └── CallTimeout       504 call_timeout
    └── NeverArrived          no answer came: nothing listens, or the line broke before the call was sent
        └── PlatformUnreachable  (no status) platform_unreachable

A message is two lines: what is wrong (with the value and the bound), then what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TorporError(Exception):
    """Root of the tree. `retry_after` is in seconds, None when unknown."""

    code: ClassVar[str] = "internal_error"
    status: int = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.detail = detail or {}

    def sentence(self) -> str:
        """In one line, as BentoCloud's API tells it: its command line prints that behind the status."""
        return self.message.replace("\n", "; ")

    def body(self) -> dict[str, Any]:
        """The JSON body outside /v1 and /v2: BentoML's `error` key, plus what the SDK needs to rebuild the class."""
        body: dict[str, Any] = {"error": self.message, "code": self.code, "retryable": self.retryable}
        if self.detail:
            body["detail"] = self.detail
        return body


class FixTheCall(TorporError):
    """The same call again fails again: the caller has to change something."""

    code = "bad_request"
    status = 400


class BadRequest(FixTheCall):
    """The call breaks a rule of the protocol or of the endpoint."""


class Unauthorized(FixTheCall):
    code = "unauthorized"
    status = 401


class Forbidden(FixTheCall):
    code = "forbidden"
    status = 403


class EndpointNotFound(FixTheCall):
    """No endpoint or route of that name is registered. A sleeping one is never this."""

    code = "endpoint_not_found"
    status = 404


class NotFound(FixTheCall):
    """Something other than an endpoint is not there: a bento, a job, a page."""

    code = "not_found"
    status = 404


class Conflict(FixTheCall):
    code = "conflict"
    status = 409


class BodyTooLarge(FixTheCall):
    code = "body_too_large"
    status = 413


class HeadersTooLarge(FixTheCall):
    code = "headers_too_large"
    status = 431


class InvalidService(FixTheCall):
    """A service folder, import string or bento that cannot be deployed."""

    code = "invalid_service"
    status = 422


class InvalidConfig(FixTheCall):
    """Configuration with faults; the message lists all of them with path, value and bound."""

    code = "invalid_config"
    status = 422


class ModelNotFound(FixTheCall):
    """A model that a service or a command names is not in the model store."""

    code = "model_not_found"
    status = 422


class ProviderMissing(FixTheCall):
    """A wanted execution provider is not active and the service declared no fallback."""

    code = "provider_missing"
    status = 422


class ExportRefused(FixTheCall):
    """An exported graph disagrees with the model it came from by more than the task allows."""

    code = "export_refused"
    status = 422


class TryLater(TorporError):
    """Nothing ran. Wait `retry_after` seconds, then call again."""

    code = "unavailable"
    status = 503
    retryable = True


class QueueFull(TryLater):
    code = "queue_full"
    status = 429


class RateLimited(TryLater):
    """The endpoint takes no more calls a second, or a day; `detail["limit"]` is `rate` or `quota`."""

    code = "rate_limited"
    status = 429


class StartFailed(TryLater):
    """A replica could not start; `detail["log"]` holds its last lines for the owner."""

    code = "start_failed"


class StartTimeout(TryLater):
    code = "start_timeout"


class QueueTimeout(TryLater):
    code = "queue_timeout"


class NoRoom(TryLater):
    """A replica does not fit into the memory that endpoints may take together."""

    code = "no_room"


class Overloaded(TryLater):
    """The router itself is short of something: descriptors, the kernel's buffers."""

    code = "overloaded"


class DiskFull(TryLater):
    """The disk under the data folder takes nothing more: it is full, over a quota, or mounted read-only."""

    code = "disk_full"
    status = 507


class EngineUnreachable(TryLater):
    """The container engine, Podman or Docker, does not answer at its socket."""

    code = "engine_unreachable"


class EngineFailed(TryLater):
    """The container engine answered that it cannot do what it was asked."""

    code = "engine_failed"


class ShuttingDown(TryLater):
    code = "shutting_down"


class GaveUp(TorporError):
    """The call may have run. Retry it only if it may run twice."""


class InternalError(GaveUp):
    """A defect of torpor. The request id finds it in the log."""


class ReplicaDied(GaveUp):
    code = "replica_died"
    status = 502


class BadAnswer(GaveUp):
    """A replica answered something that is not HTTP."""

    code = "bad_answer"
    status = 502


class CallTimeout(GaveUp):
    code = "call_timeout"
    status = 504


class CallFailed(GaveUp):
    """The endpoint's own error. `status` is as answered, `detail["body"]` its body."""

    code = "call_failed"

    def __init__(self, message: str, *, status: int = 500, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.status = status


class NeverArrived(TorporError):
    """No answer came; nothing was run."""

    code = "platform_unreachable"
    status = 0
    retryable = True


class PlatformUnreachable(NeverArrived):
    """Nothing listens at the platform's address, or the line broke before the call was sent."""


def _leaves(cls: type[TorporError]) -> list[type[TorporError]]:
    below = [leaf for sub in cls.__subclasses__() for leaf in _leaves(sub)]
    return below or [cls]


BY_CODE: dict[str, type[TorporError]] = {leaf.code: leaf for leaf in _leaves(TorporError)}


def from_body(status: int, body: Any, retry_after: float | None = None) -> TorporError:
    """Rebuilds the error that a torpor answer stands for; an endpoint's own error becomes `CallFailed`."""
    code = body.get("code") if isinstance(body, dict) else None
    message = body.get("error") if isinstance(body, dict) else None
    if isinstance(message, dict):  # OpenAI's shape on /v1
        code, message = message.get("code"), message.get("message")
    cls = BY_CODE.get(str(code)) if code else None
    if cls is None or cls is CallFailed:
        text = str(message) if message else f"the endpoint answered {status}{_line(body)}"
        return CallFailed(text + _places(body), status=status, retry_after=retry_after, detail={"body": body})
    detail = body.get("detail") if isinstance(body, dict) else None
    return cls(str(message), retry_after=retry_after, detail=detail if isinstance(detail, dict) else None)


def _line(body: Any) -> str:
    """The first line of an answer that is text."""
    lines = body.strip().splitlines() if isinstance(body, str) else []
    return f": {lines[0][:200]}" if lines else ""


def _places(body: Any) -> str:
    """What pydantic found wrong with a call's arguments, a line each: BentoML sends it as `detail`."""
    found = body.get("detail") if isinstance(body, dict) else None
    places = [each for each in found if isinstance(each, dict) and "msg" in each] if isinstance(found, list) else []
    return "".join(f"\n  {'.'.join(map(str, each.get('loc', ())))}: {each['msg']}" for each in places)
