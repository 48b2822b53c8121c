"""Batch only what pays: sizes that make items dearer are not used, until that changes."""

from __future__ import annotations

import asyncio

from tests.host.test_batches import Played
from torpor.host.pay import ENOUGH, FRESH, KEPT, Pay


def taught(pay: Pay, *costs: tuple[int, float], times: int = ENOUGH) -> Pay:
    """`costs`: items of a batch, seconds for each of them."""
    for _ in range(times):
        for items, cost in costs:
            pay.learn(items, items * cost)
    return pay


def test_a_batch_may_be_full_while_nothing_is_known() -> None:
    assert Pay(64).most() == 64


def test_larger_batches_that_are_cheaper_are_used() -> None:
    assert taught(Pay(64), (1, 0.008), (4, 0.003), (32, 0.0023)).most() == 64


def test_a_size_that_makes_items_dearer_is_not_used() -> None:
    assert taught(Pay(64), (1, 0.032), (32, 0.037)).most() == 31
    assert taught(Pay(64), (1, 0.032), (2, 0.037), (32, 0.037)).most() == 1
    assert taught(Pay(64), (1, 0.08), (4, 0.03), (8, 0.04), (32, 0.05)).most() == 7


def test_a_difference_that_noise_makes_or_one_that_was_seen_once_changes_nothing() -> None:
    assert taught(Pay(64), (1, 0.032), (32, 0.034)).most() == 64
    assert taught(Pay(64), (1, 0.032), (32, 0.064), times=ENOUGH - 1).most() == 64


def test_a_small_size_that_was_disturbed_does_not_keep_larger_ones_from_being_used() -> None:
    assert taught(Pay(64), (1, 0.005), (2, 0.009), (32, 0.0023)).most() == 64


def test_one_batch_that_stalled_changes_nothing() -> None:
    pay = taught(Pay(64), (1, 0.005), (32, 0.0023))
    pay.learn(32, 5.0)
    assert pay.most() == 64


def test_what_is_not_used_is_tried_again_and_used_when_it_pays_again() -> None:
    pay = taught(Pay(64), (1, 0.032), (32, 0.064))
    assert pay.most() == 31
    taught(pay, (1, 0.005), times=FRESH)  # other rows come, one by one because of what is known of the former ones
    assert pay.most() == 64
    taught(pay, (32, 0.0023))
    assert pay.most() == 64


def test_an_empty_batch_teaches_nothing() -> None:
    pay = Pay(8)
    pay.learn(0, 1.0)
    assert pay.most() == 8


def test_calls_that_wait_are_split_into_batches_that_pay() -> None:
    async def play() -> None:
        played = Played(max_batch_size=8)
        taught(played.batches.pay, (1, 1.0), (2, 0.5), (4, 0.9))
        await played.call("a")
        await played.method.begun.wait()
        for value in ("b", "c", "d", "e", "f", "gggg"):
            await played.call(value)
        assert await played.answers() == ["A", "B", "C", "D", "E", "F", "GGGG"]
        assert played.method.batches == [["a"], ["b", "c", "d"], ["e", "f"], ["gggg"]]

    asyncio.run(play())


def test_calls_that_come_together_are_one_batch() -> None:
    async def play() -> None:
        played = Played()
        await asyncio.gather(*(played.call(value) for value in "abc"))
        assert await played.answers() == ["A", "B", "C"]
        assert played.method.batches == [["a", "b", "c"]]

    asyncio.run(play())


def test_waiting_for_more_items_is_worth_it_where_they_are_cheaper_or_were_not_tried() -> None:
    pay = taught(Pay(64), (3, 0.0028), (5, 0.00245), (8, 0.0024))
    assert pay.is_worth(3, 8)
    assert not pay.is_worth(5, 8)  # little is gained
    assert not pay.is_worth(8, 8)
    assert pay.is_worth(3, 32)


def test_a_size_is_measured_before_anything_is_waited_for() -> None:
    pay = Pay(64)
    assert not pay.is_worth(3, 8)
    assert not taught(pay, (3, 0.0028), times=ENOUGH - 1).is_worth(3, 8)
    assert taught(pay, (3, 0.0028), times=1).is_worth(3, 8)


def test_a_size_that_is_always_waited_out_is_measured_again() -> None:
    pay = taught(Pay(64), (3, 0.0028), (8, 0.0024))
    taught(pay, (8, 0.0024), times=KEPT)
    assert not pay.is_worth(3, 8)


def test_waiting_for_items_that_would_not_share_the_batch_is_not_worth_it() -> None:
    assert not taught(Pay(4), (4, 0.01)).is_worth(4, 8)
    assert not taught(Pay(4), (4, 0.01)).is_worth(9, 18)
    assert not taught(Pay(64), (1, 0.032), (2, 0.037), (32, 0.037)).is_worth(1, 8)
