"""Batches without a timer: what arrived while the previous one ran is the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from tests.host.hosting import Gate, Replica
from torpor.host import batch
from torpor.host.batch import Batches
from torpor.host.pay import ENOUGH
from torpor.host.work import WORK, Work

CALLER: ContextVar[str] = ContextVar("caller", default="nobody")


class Method:
    """A batchable method that waits for its gate, and what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.callers: list[str] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.answers: Sequence[Any] | Exception | None = None

    async def __call__(self, batch: Sequence[Any], **others: Any) -> Sequence[Any]:
        self.batches.append(["".join(value) for value in batch])
        self.callers.append(CALLER.get())
        self.begun.set()
        await self.gate.wait()
        if isinstance(self.answers, Exception):
            raise self.answers
        return [value.upper() for value in batch] if self.answers is None else self.answers


class Played:
    """Calls of one method, as tasks."""

    def __init__(self, max_batch_size: int = 8) -> None:
        self.method = Method()
        self.batches = Batches(max_batch_size, len, len)
        self.calls: list[asyncio.Task[Any]] = []

    async def call(self, value: str, **others: Any) -> asyncio.Task[Any]:
        async def one() -> Any:
            CALLER.set(value)
            infer: Any = partial(self.method, **others)
            return await self.batches(infer)(value)

        task = asyncio.create_task(one())
        self.calls.append(task)
        await asyncio.sleep(0)
        return task

    async def answers(self) -> list[Any]:
        self.method.gate.set()
        return await asyncio.gather(*self.calls, return_exceptions=True)


def test_the_first_call_does_not_wait_and_those_behind_it_are_one_batch() -> None:
    async def play() -> None:
        played = Played()
        await played.call("a")
        await played.method.begun.wait()
        for value in "bcd":
            await played.call(value)
        assert await played.answers() == ["A", "B", "C", "D"]
        assert played.method.batches == [["a"], ["b", "c", "d"]]

    asyncio.run(play())


def test_a_batch_holds_at_most_its_size_or_one_larger_call_alone() -> None:
    async def play() -> None:
        played = Played(max_batch_size=4)
        await played.call("a")
        await played.method.begun.wait()
        for value in ("bb", "cc", "d", "eeeee", "f", "ggg"):
            await played.call(value)
        assert await played.answers() == ["A", "BB", "CC", "D", "EEEEE", "F", "GGG"]
        assert played.method.batches == [["a"], ["bb", "cc"], ["d"], ["eeeee"], ["f", "ggg"]]

    asyncio.run(play())


def test_calls_with_other_arguments_do_not_share_a_batch() -> None:
    async def play() -> None:
        played = Played()
        await played.call("a")
        await played.method.begun.wait()
        for value, language in (("b", "en"), ("c", "en"), ("d", "fr"), ("e", "en")):
            await played.call(value, language=language)
        await played.answers()
        assert played.method.batches == [["a"], ["b", "c"], ["d"], ["e"]]

    asyncio.run(play())


def test_a_caller_who_left_before_its_batch_is_not_in_it() -> None:
    async def play() -> None:
        played = Played()
        await played.call("a")
        await played.method.begun.wait()
        gone = await played.call("b")
        await played.call("c")
        gone.cancel()
        answers = await played.answers()
        assert played.method.batches == [["a"], ["c"]]
        assert (answers[0], answers[2]) == ("A", "C")

    asyncio.run(play())


def test_a_caller_who_leaves_a_running_batch_does_not_cancel_it_and_has_it_among_its_work() -> None:
    async def play() -> None:
        played = Played()
        work = Work()
        WORK.set(work)
        first = await played.call("a")
        await played.method.begun.wait()
        first.cancel()
        await asyncio.sleep(0)
        assert first.cancelled()
        ended = asyncio.create_task(work.ended())
        await asyncio.sleep(0)
        assert not ended.done()
        await played.call("b")
        await played.answers()
        await ended
        assert played.method.batches == [["a"], ["b"]]

    asyncio.run(play())


def test_each_batch_runs_in_the_context_of_its_first_call() -> None:
    async def play() -> None:
        played = Played()
        await played.call("a")
        await played.method.begun.wait()
        await played.call("b")
        await played.call("c")
        await played.answers()
        assert played.method.callers == ["a", "b"]

    asyncio.run(play())


def test_an_error_is_the_answer_of_each_call_and_the_next_batch_runs() -> None:
    async def play() -> None:
        played = Played()
        played.method.answers = ZeroDivisionError("all of them")
        await played.call("a")
        await played.method.begun.wait()
        await played.call("b")
        await played.call("c")
        assert [str(answer) for answer in await played.answers()] == ["all of them"] * 3
        played.method.answers = None
        assert await (await played.call("d")) == "D"

    asyncio.run(play())


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["B"], "1 results for a batch of 2"),
        (["B", "C", "D"], "3 results for a batch of 2"),
        (["BB", "C"], "3 results for a batch of 2 items"),
        (["B", ""], "1 results for a batch of 2 items"),
    ],
)
def test_a_wrong_number_of_results_is_an_error_for_each_call(answers: list[str], told: str) -> None:
    """Else one caller would get a part of another's."""

    async def play() -> None:
        played = Played()
        await played.call("a")
        await played.method.begun.wait()
        await played.call("b")
        await played.call("c")
        played.method.gate.set()
        assert await played.calls[0] == "A"
        played.method.answers = answers
        got = await played.answers()
        assert [type(answer) for answer in got[1:]] == [ValueError, ValueError]
        assert all(told in str(answer) for answer in got[1:])

    asyncio.run(play())


def test_the_next_batch_waits_for_those_whom_the_last_one_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "AGAIN", 1e9)

    async def play() -> None:
        played = Played()
        for _ in range(ENOUGH):
            played.batches.pay.learn(1, 1e-9)  # a batch of one is known
        for value in "ab":
            await played.call(value)
        await played.method.begun.wait()
        waits = await played.call("c")
        played.method.gate.set()
        assert await asyncio.gather(*played.calls[:2]) == ["A", "B"]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waits.done()
        await played.call("d")
        assert not waits.done()
        await played.call("e")
        assert await asyncio.gather(*played.calls[2:]) == ["C", "D", "E"]
        assert played.method.batches == [["a", "b"], ["c", "d", "e"]]

    asyncio.run(play())


def test_a_batch_that_would_be_no_cheaper_with_them_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "AGAIN", 1e9)

    async def play() -> None:
        played = Played()
        for size in (1, 2) * ENOUGH:
            played.batches.pay.learn(size, size * 1e-9)
        for value in "ab":
            await played.call(value)
        await played.method.begun.wait()
        await played.call("c")
        assert await played.answers() == ["A", "B", "C"]
        assert played.method.batches == [["a", "b"], ["c"]]

    asyncio.run(play())


# In a replica, over real connections.


def test_calls_that_came_while_a_batch_ran_are_answered_by_the_next(patient: Replica, gate: Gate) -> None:
    first = patient.line("batch", texts=[str(gate)])
    gate.begun()
    behind = [patient.line("batch", texts=["x"] * size) for size in (1, 2, 2, 6, 1)]  # four at most in a batch
    assert patient.call("process").status_code == 200  # all have come
    gate.open()
    assert first.read(b"]").endswith(b"[1]")
    answers = [line.read(b"]").rpartition(b"\r\n\r\n")[2] for line in behind]
    assert answers == [b"[3]", b"[3, 3]", b"[2, 2]", b"[6, 6, 6, 6, 6, 6]", b"[1]"]


def test_results_that_are_too_few_for_a_batch_are_nobodys(patient: Replica, gate: Gate) -> None:
    first = patient.line("short", texts=[str(gate)])
    gate.begun()
    behind = [patient.line("short", texts=["a", "b"]), patient.line("short", texts=["c"])]
    assert patient.call("process").status_code == 200
    gate.open()
    assert b"200 OK" in first.read(b"]")
    assert all(b" 500 " in line.read(b"}") for line in behind)
    assert "ValueError: the method returned 2 results for a batch of 3 items" in patient.log.read_text()
    assert patient.call("short", texts=["a", "b"]).json() == ["b"]  # a caller alone gets what came, as from BentoML
