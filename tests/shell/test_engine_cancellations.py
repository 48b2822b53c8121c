"""Whoever waits for the engine is cancelled in every phase, and nothing is held afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from router.core import events as ev
from router.core.settings import Settings
from tests.shell.fakes.stage import FakeCall, Stage, idle, plan, play


async def called(stage: Stage) -> None:
    """A caller as the proxy is one: leaves when it is cancelled while parked, settles what it was granted."""
    call = FakeCall(stage)
    stage.engine.want(call, call.target, None)
    try:
        await call.answer()
        await anyio.sleep(100)
    finally:
        if call.waits:
            stage.engine.leave(call)
        if call.lease is not None:
            call.settle()


async def woken(stage: Stage) -> None:
    await stage.engine.wake("e")


async def slept(stage: Stage) -> None:
    await stage.engine.sleep("e", force=True)


async def removed(stage: Stage) -> None:
    await stage.engine.remove("e")


async def proved(stage: Stage) -> None:
    await stage.engine.prove(plan("e", 2), Settings())
    try:
        await anyio.sleep(100)
    except BaseException:
        stage.engine.abandon("e")
        raise


async def planning(stage: Stage) -> None:
    stage.deployed(concurrency=1)
    stage.planning = anyio.Event()


async def asleep(stage: Stage) -> None:
    stage.deployed(concurrency=1)


async def starting(stage: Stage) -> None:
    stage.deployed(concurrency=1)
    stage.launcher.hold_start()


async def loading(stage: Stage) -> None:
    stage.deployed(concurrency=1)
    stage.launcher.hold_ready()


async def full(stage: Stage) -> None:
    """Ready, and its one slot taken."""
    stage.deployed(concurrency=1)
    holder = stage.want()
    await holder.answer()
    stage.holders.append(holder)


async def stopping(stage: Stage) -> None:
    stage.deployed(concurrency=1)
    await stage.awake()
    stage.launcher.hold_stop()


@dataclass(frozen=True)
class Phase:
    """`before` brings the endpoint there, `waits` is cancelled there."""

    before: Callable[[Stage], Awaitable[None]]
    waits: Callable[[Stage], Coroutine[Any, Any, None]]

    def __str__(self) -> str:
        return f"{self.waits.__name__} while {self.before.__name__}"


PHASES = [
    *(Phase(before, called) for before in (asleep, planning, starting, loading, full)),
    *(Phase(before, woken) for before in (planning, starting, loading, full)),
    *(Phase(before, slept) for before in (planning, starting, full, stopping)),
    *(Phase(before, removed) for before in (planning, full, stopping)),
    *(Phase(before, proved) for before in (asleep, starting, loading, full)),
]


@pytest.mark.parametrize("phase", PHASES, ids=str)
def test_cancellations_leave_nothing_held(phase: Phase) -> None:
    async def scenario(stage: Stage) -> None:
        await phase.before(stage)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phase.waits, stage)
            await idle()
            tasks.cancel_scope.cancel()
        stage.release()
        for holder in stage.holders:
            holder.settle()
        await idle()
        stage.nothing_is_held()
        await anyio.sleep(1000)
        assert (stage.launcher.alive, stage.states()) == ({}, []), "what runs is stopped when it has been idle"

    play(scenario)


BEFORE = [planning, starting, loading, full, stopping]


@pytest.mark.parametrize("before", BEFORE, ids=lambda before: str(before.__name__))
def test_an_engine_that_is_cancelled_in_its_shutdown_leaves_no_replica(
    before: Callable[[Stage], Awaitable[None]],
) -> None:
    async def scenario(_: Stage) -> None:
        stage = Stage()

        async def release() -> None:
            await anyio.sleep(5)
            stage.release()

        async with anyio.create_task_group() as outer:
            async with anyio.create_task_group() as tasks:
                await tasks.start(stage.engine.run)
                await before(stage)
                call = stage.want()
                await idle()
                stage.engine.tell(ev.ShutDown())
                for each in (call, *stage.holders):
                    if each.lease is not None:
                        each.settle()
                await idle()
                outer.start_soon(release)
                tasks.cancel_scope.cancel()
            assert (stage.launcher.alive, stage.launcher.holding) == ({}, 0)

    play(scenario)
