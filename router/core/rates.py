"""How often an endpoint may be called: a bucket of tokens for the calls a second, a count for those of a day (UTC)."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.core.settings import Settings
from router.core.split import endpoint_of
from torpor.errors import RateLimited
from torpor.wire import RETRY_AFTER_MAX

DAY = 86400.0  # seconds
_WHOLE = 1.0 - 1e-9  # of a token: who waited as long as it was told finds one, however its parts were rounded


@dataclass(slots=True)
class Meter:
    """One endpoint's limits, and what it has used of them. A limit of 0 is none."""

    endpoint: str
    rate: float = 0.0  # tokens a second
    burst: float = 1.0  # tokens at most
    quota: int = 0  # calls a day
    tokens: float = 0.0
    filled_at: float = 0.0
    day: int = 0  # since the epoch
    used: int = 0  # calls let through on that day
    refused: dict[str, int] = field(default_factory=lambda: {"rate": 0, "quota": 0})

    def limit(self, settings: Settings, now: float) -> None:
        """From now on these. What was used stays used; a bucket that is new is full."""
        self._fill(now)
        fresh = not self.rate
        self.rate, self.quota = settings.rate, settings.quota
        self.burst = float(settings.burst or max(1.0, settings.rate))
        self.tokens = self.burst if fresh else min(self.burst, self.tokens)

    def admit(self, now: float, today: float) -> RateLimited | None:
        """Takes one call, or says why not: then nothing is taken. `now`: seconds of a clock that never goes back;
        `today`: since the epoch.

        1 a new day begins, 2 the bucket fills, 3 the day's calls are over, 4 the bucket is empty.
        """
        day = int(today // DAY)
        if day > self.day:  # 1; a clock that is set back gives no second day
            self.day, self.used = day, 0
        self._fill(now)  # 2
        if self.quota and self.used >= self.quota:  # 3
            self.refused["quota"] += 1
            return self._over_quota((self.day + 1) * DAY - today)
        if self.rate and self.tokens < _WHOLE:  # 4
            self.refused["rate"] += 1
            return self._too_often((1.0 - self.tokens) / self.rate)
        self.used += 1
        if self.rate:
            self.tokens -= 1.0
        return None

    def _fill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now

    def _too_often(self, wait: float) -> RateLimited:
        return RateLimited(
            f"endpoint {self.endpoint!r} takes {self.rate:g} calls a second, up to {int(self.burst)} at once\n"
            f"call again in {wait:.2g} s, or raise rate or burst",
            retry_after=wait,
            detail={"limit": "rate"},
        )

    def _over_quota(self, wait: float) -> RateLimited:
        return RateLimited(
            f"endpoint {self.endpoint!r} takes {self.quota} calls a day (UTC), and had {self.used} today\n"
            f"call again in {wait / 3600:.2g} hours, or raise quota",
            retry_after=min(RETRY_AFTER_MAX, wait),
            detail={"limit": "quota"},
        )


class Rates:
    """The meters of all endpoints. An endpoint's live revision sets its limits; its variants' calls count for them."""

    def __init__(self) -> None:
        self.lines: dict[str, Meter] = {}  # of limited endpoints only: where a call looks for its meter
        self._meters: dict[str, Meter] = {}  # by endpoint; also those without a limit now, for what they have used
        self._known: dict[str, set[str]] = {}  # the lines of each endpoint
        self._written: dict[str, tuple[int, int]] = {}

    def live(self, line: str, settings: Settings, now: float) -> None:
        """A revision went live on this line."""
        endpoint = endpoint_of(line)
        self._known.setdefault(endpoint, set()).add(line)
        meter = self._meters.get(endpoint)
        if line == endpoint and (meter is not None or settings.rate or settings.quota):
            meter = self._meters.setdefault(endpoint, Meter(endpoint))
            meter.limit(settings, now)
        for each in self._known[endpoint]:
            if meter is not None and (meter.rate or meter.quota):
                self.lines[each] = meter
            else:
                self.lines.pop(each, None)

    def gone(self, line: str) -> None:
        """The line is off the air. What its endpoint has used stays, until that is forgotten."""
        self.lines.pop(line, None)
        if known := self._known.get(endpoint_of(line)):
            known.discard(line)

    def forget(self, endpoint: str) -> None:
        """The endpoint was removed; one of the same name counts anew."""
        self._meters.pop(endpoint, None)
        self._known.pop(endpoint, None)
        self._written.pop(endpoint, None)

    def restore(self, endpoint: str, day: int, used: int) -> None:
        """What the endpoint had used when that was last written, by a router before this one."""
        meter = self._meters.setdefault(endpoint, Meter(endpoint))
        meter.day, meter.used = day, used
        self._written[endpoint] = (day, used)

    def refused(self, endpoint: str) -> dict[str, int]:
        """Calls refused so far, by `rate` and `quota`."""
        meter = self._meters.get(endpoint)
        return {} if meter is None else meter.refused

    def unwritten(self) -> list[tuple[str, int, int]]:
        """(endpoint, day, calls used) of those with a quota, where that is not what was written last."""
        rows = [(m.endpoint, m.day, m.used) for m in list(self._meters.values()) if m.quota]
        return [row for row in rows if self._written.get(row[0]) != row[1:]]

    def wrote(self, rows: list[tuple[str, int, int]]) -> None:
        self._written |= {name: (day, used) for name, day, used in rows if name in self._meters}
