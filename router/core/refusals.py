"""The errors that the schedule gives to calls and to deploys: what is wrong, then what to do."""

from __future__ import annotations

import signal

from router.core.line import Line
from torpor.errors import EndpointNotFound, NoRoom, QueueFull, QueueTimeout, ShuttingDown, StartFailed, StartTimeout
from torpor.wire import RETRY_AFTER_MAX


def unknown(endpoint: str) -> EndpointNotFound:
    missing = f"no endpoint is called {endpoint!r}\nsee `torpor ls` for those that are"
    return EndpointNotFound(missing, detail={"name": endpoint})


def terminated(endpoint: str) -> EndpointNotFound:
    stopped = f"endpoint {endpoint!r} is terminated\nits owner starts it again: torpor start {endpoint}"
    return EndpointNotFound(stopped, detail={"name": endpoint})


def shutting_down() -> ShuttingDown:
    return ShuttingDown("the router is shutting down\ntry again in a moment", retry_after=5)


def queue_full(line: Line, now: float) -> QueueFull:
    return QueueFull(
        f"{len(line.parked)} calls wait for endpoint {line.name!r} already, which is max_queue\n"
        "try again later, or raise max_queue, concurrency or max_replicas",
        retry_after=line.retry_after(now),
    )


def waited_out(line: Line, waited: float, now: float) -> QueueTimeout:
    return QueueTimeout(
        f"the call waited {waited:.1f} s for a replica of {line.name!r}, as long as it may\n"
        "try again later, or allow a longer queue_within",
        retry_after=line.retry_after(now),
    )


def too_large(line: Line, platform: int, limit: int) -> NoRoom:
    return NoRoom(
        f"a replica of {line.name!r} takes {mib(line.memory)}, torpor {mib(platform)}, and all have {mib(limit)}\n"
        "raise the memory setting, or deploy a smaller model",
        retry_after=RETRY_AFTER_MAX,
    )


def no_cards(endpoint: str, wanted: int, there: int) -> NoRoom:
    return NoRoom(
        f"a replica of {endpoint!r} wants {gpus(wanted)}, and this machine has {there} to hand out\n"
        "see `torpor doctor`, or deploy it with fewer",
        retry_after=RETRY_AFTER_MAX,
    )


def above_limit(size: int, limit: int) -> str:
    return f"it took {mib(size)}, more than its memory_limit of {mib(limit)}"


def no_room(line: Line, waited: float, now: float) -> NoRoom:
    what, more = ("memory or a GPU", "") if line.settings.gpu else ("memory", ", or raise the memory setting")
    return NoRoom(
        f"the call waited {waited:.1f} s for {what}: what is busy takes all that endpoints may have\n"
        f"try again later{more}",
        retry_after=line.retry_after(now),
    )


def no_card_free(endpoint: str, wanted: int, waited: float) -> NoRoom:
    return NoRoom(
        f"the trial of {endpoint!r} waited {waited:.1f} s for {gpus(wanted)}: others have them\n"
        "put an endpoint to sleep that has one, and deploy it again"
    )


def gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"


def mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def put_to_sleep(endpoint: str) -> QueueTimeout:
    return QueueTimeout(f"endpoint {endpoint!r} was put to sleep by its owner\ncall again to wake it", retry_after=1)


def start_failed(line: Line, reason: str, log: tuple[str, ...]) -> StartFailed:
    """`log`, the replica's last lines, travels as detail. An endpoint that is not live has no log to be asked for."""
    live = line.revision is not None
    return StartFailed(
        f"a replica of {line.name!r} could not start: {reason}\n"
        + (f"its log has the rest: torpor logs {line.name}" if live else "mend the service, and deploy it again"),
        detail={"log": list(log)} if log else None,
    )


def start_timeout(line: Line, took: float, log: tuple[str, ...]) -> StartTimeout:
    """`log` as for `start_failed`."""
    look = f"see what it waits for with `torpor logs {line.name}`" if line.revision is not None else "make it quicker"
    return StartTimeout(
        f"a replica of {line.name!r} was not ready after {took:.1f} s, its start_within\n"
        f"{look}, or deploy with a longer start_within",
        detail={"log": list(log)} if log else None,
    )


def ending(status: int) -> str:
    """How a process ended, in words; `status` as of `os.waitstatus_to_exitcode`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
