"""How often an endpoint may be called: the bucket, the day, and whose calls they are."""

from __future__ import annotations

import random

import pytest

from router.core.rates import DAY, Meter, Rates
from router.core.settings import Settings
from torpor.errors import RateLimited

NOON = 20_000 * DAY + DAY / 2


def metered(**settings: float) -> Meter:
    """Of endpoint `e`, at second 100 of the clock."""
    meter = Meter("e")
    meter.limit(Settings(**settings), 100.0)  # type: ignore[arg-type]  # the dataclass's keywords
    return meter


def passed(meter: Meter, calls: int, now: float, today: float = NOON) -> int:
    return sum(meter.admit(now, today) is None for _ in range(calls))


@pytest.mark.parametrize(
    ("settings", "at_once"),
    [
        ({"rate": 5}, 5),
        ({"rate": 5, "burst": 2}, 2),
        ({"rate": 0.1}, 1),
        ({"rate": 0.1, "burst": 7}, 7),
        ({"rate": 2.5}, 2),
        ({"quota": 3}, 3),
        ({"rate": 5, "quota": 3}, 3),
    ],
)
def test_of_a_burst_exactly_the_buckets_pass(settings: dict[str, float], at_once: int) -> None:
    assert passed(metered(**settings), 50, 100.0) == at_once


def test_the_bucket_fills_at_its_rate_and_not_above_its_burst() -> None:
    meter = metered(rate=4, burst=3)
    assert passed(meter, 10, 100.0) == 3
    assert [passed(meter, 10, now) for now in (100.2, 100.25, 100.5, 101.0, 500.0)] == [0, 1, 1, 2, 3]


def test_over_an_hour_no_more_than_the_rate_passes_however_the_calls_come() -> None:
    draw = random.Random(7)
    meter, now, calls = metered(rate=3, burst=10), 100.0, 0
    while now < 3700.0:
        calls += passed(meter, draw.randrange(4), now)
        now += draw.expovariate(4.0)
    assert 3 * 3600 * 0.99 < calls <= 10 + 3 * 3600


def test_who_waits_as_long_as_it_was_told_is_let_through() -> None:
    for rate in (0.3, 3.0, 7.0, 1e-3, 1e5):
        meter = metered(rate=rate, burst=1)
        now = 100.0
        assert meter.admit(now, NOON) is None
        for _ in range(100):
            refused = meter.admit(now, NOON)
            assert isinstance(refused, RateLimited)
            assert refused.retry_after is not None
            now += refused.retry_after
            assert meter.admit(now, NOON) is None


def test_a_refusal_says_the_limit_and_what_to_do() -> None:
    rate, quota = metered(rate=0.5), metered(quota=1)
    assert (rate.admit(100.0, NOON), quota.admit(100.0, NOON)) == (None, None)
    slow, over = rate.admit(100.5, NOON), quota.admit(100.0, NOON)
    assert slow is not None
    assert over is not None
    assert (
        slow.message
        == "endpoint 'e' takes 0.5 calls a second, up to 1 at once\ncall again in 1.5 s, or raise rate or burst"
    )
    assert over.message == (
        "endpoint 'e' takes 1 calls a day (UTC), and had 1 today\ncall again in 12 hours, or raise quota"
    )
    assert (slow.status, slow.code, slow.retryable, slow.detail) == (429, "rate_limited", True, {"limit": "rate"})
    assert (slow.retry_after, over.retry_after, over.detail) == (1.5, 120.0, {"limit": "quota"})


def test_the_quota_is_of_a_utc_day_and_tells_the_time_to_its_end_where_that_is_near() -> None:
    meter = metered(quota=2)
    midnight = 20_001 * DAY
    assert passed(meter, 5, 100.0, midnight - 30) == 2
    refused = meter.admit(100.0, midnight - 30)
    assert refused is not None
    assert refused.retry_after == 30.0
    assert passed(meter, 5, 101.0, midnight) == 2


def test_a_clock_that_is_set_back_gives_no_second_day() -> None:
    meter = metered(quota=2)
    assert [passed(meter, 5, 100.0, NOON + days * DAY) for days in (0, -1, 0, 1, 0)] == [2, 0, 0, 2, 0]


def test_a_call_that_one_limit_refuses_takes_nothing_of_the_other() -> None:
    meter = metered(rate=1, burst=2, quota=3)
    assert passed(meter, 10, 100.0) == 2
    assert meter.used == 2
    assert passed(meter, 10, 200.0) == 1
    assert meter.tokens == 1.0
    assert meter.refused == {"rate": 8, "quota": 9}


def test_another_revisions_limits_hold_at_once_and_what_was_used_stays_used() -> None:
    meter = metered(rate=1, burst=10, quota=20)
    assert passed(meter, 50, 100.0) == 10
    meter.limit(Settings(rate=1, burst=5, quota=12), 100.0)
    assert passed(meter, 50, 100.0) == 0, "a deploy fills no bucket"
    assert passed(meter, 50, 1000.0) == 2, "of 12 today 10 were used"
    meter.limit(Settings(quota=13), 1000.0)
    assert passed(meter, 50, 1000.0) == 1


def test_a_bucket_that_fills_slower_from_now_on_keeps_what_it_has() -> None:
    meter = metered(rate=2, burst=10)
    assert passed(meter, 50, 100.0) == 10
    meter.limit(Settings(rate=0.001, burst=10), 103.0)
    assert passed(meter, 50, 103.0) == 6


def test_variants_count_towards_their_endpoint_in_whatever_order_they_come() -> None:
    rates, limited = Rates(), Settings(quota=2)
    rates.live("e~early", Settings(quota=99), 0.0)
    assert rates.lines == {}
    rates.live("e", limited, 0.0)
    rates.live("e~late", Settings(), 0.0)
    rates.live("other", Settings(), 0.0)
    assert set(rates.lines) == {"e", "e~early", "e~late"}
    assert [rates.lines[line].admit(0.0, NOON) is None for line in ("e~early", "e~late", "e")] == [True, True, False]
    assert rates.refused("e") == {"rate": 0, "quota": 1}
    rates.gone("e~late")
    assert set(rates.lines) == {"e", "e~early"}
    rates.live("e", Settings(), 0.0)
    assert rates.lines == {}, "who has no limit is not looked at"


def test_what_a_day_has_used_outlives_lifted_limits_and_termination_and_not_the_endpoint() -> None:
    rates, limited = Rates(), Settings(quota=2)
    rates.live("e", limited, 0.0)
    assert passed(rates.lines["e"], 5, 0.0) == 2
    rates.live("e", Settings(), 0.0)
    rates.live("e", limited, 0.0)
    assert passed(rates.lines["e"], 5, 0.0) == 0
    rates.gone("e")
    assert rates.lines == {}
    rates.live("e", limited, 0.0)
    assert passed(rates.lines["e"], 5, 0.0) == 0
    rates.gone("e")
    rates.forget("e")
    rates.live("e", limited, 0.0)
    assert passed(rates.lines["e"], 5, 0.0) == 2


def test_only_what_has_changed_is_written_and_what_was_written_is_taken_up() -> None:
    rates, limited = Rates(), Settings(quota=3)
    for name in ("e", "f"):
        rates.live(name, limited, 0.0)
    rates.restore("e", 20_000, 2)
    rates.restore("f", 19_999, 3)
    rates.live("g", Settings(rate=1), 0.0)
    assert rates.unwritten() == []
    assert [passed(rates.lines[name], 5, 0.0) for name in ("e", "f", "g")] == [1, 3, 1]
    rows = rates.unwritten()
    assert rows == [("e", 20_000, 3), ("f", 20_000, 3)]
    rates.wrote(rows)
    assert rates.unwritten() == []
