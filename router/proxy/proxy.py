"""The proxy as a whole: its callers, its pool of replicas, and the one clock tick that ends what is overdue."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import sys
import time
from collections.abc import Callable

from router.proxy.caller import Caller
from router.proxy.calls import Calls, Door, Target, Traces
from router.proxy.exchange import Exchange
from router.proxy.head import RequestHead, Requests
from router.proxy.limits import Limits
from router.proxy.pool import Pool
from router.proxy.tally import Tallies
from router.proxy.tap import Tap, Taps
from router.proxy.traced import TracedCaller
from torpor.errors import TorporError

_TICK_MAX = 0.5  # seconds between two looks at the deadlines
_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Proxy:
    """Everything runs on the event loop that the listeners run on. `control`: the control plane's Unix socket."""

    def __init__(self, calls: Calls, control: str, limits: Limits, traces: Traces | None = None) -> None:
        self.calls = calls
        self.control = control
        self.traces = traces
        self.door: Door | None = None  # asks for tokens; it may be set while callers are there
        self.taps: Taps | None = None  # wants copies of calls
        self.limits = limits
        self.requests = Requests(limits)
        self.pool = Pool(calls, limits.max_idle)
        self.closing = False
        self.time = time.monotonic
        self.tallies = Tallies(self.time)
        self.now = self.time()  # at the last tick: good enough for deadlines
        self._callers: set[Caller] = set()
        self._tick_due: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        # Request ids: unique, not secret.
        self.new_id: Callable[[], bytes] = map(
            f"{os.urandom(8).hex()}-%d".encode().__mod__, itertools.count(1)
        ).__next__
        shortest = min(limits.header_within, limits.body_within, limits.keep_alive, limits.answer_within, limits.linger)
        self._tick_every = min(_TICK_MAX, max(0.01, shortest / 4))

    def protocol_factory(self, port: int | None) -> Callable[[], asyncio.Protocol]:
        """For `loop.create_server`. `port`: an endpoint's own, None for the main listener."""
        caller = Caller if self.traces is None else TracedCaller
        return lambda: caller(self, port)

    def target(self, head: RequestHead, port: int | None) -> Target | None:
        """Where a request goes; None: to the control plane. Raises what refuses it."""
        door = self.door
        target = self.calls.resolve(head.path, head.host, port) if door is None else door.admit(head, port)
        if target is not None and target.split is not None:
            return self.calls.share(target, head)
        return target

    def tap(self, exchange: Exchange, target: Target) -> Tap | None:
        """What listens to an exchange, of an endpoint that has several versions."""
        return None if self.taps is None else self.taps.tap(exchange, target)

    def forget(self, endpoint: str) -> None:
        """The endpoint was removed; one of the same name counts anew."""
        self.tallies.forget(endpoint)
        if self.taps is not None:
            self.taps.forget(endpoint)

    def body_max(self, head: RequestHead, port: int | None) -> int:
        """Bytes that the request's body may have. The control plane bounds its own: a bento is larger than a call."""
        return sys.maxsize if self.of_control(head, port) else self.limits.max_body_bytes

    def of_control(self, head: RequestHead, port: int | None) -> bool:
        """Whether a request is for the control plane, allowed or not."""
        try:
            return self.calls.resolve(head.path, head.host, port) is None
        except TorporError:  # it is told once its request is read
            return False

    async def close(self, within: float) -> None:
        """Ends keep-alive, lets running exchanges end for `within` seconds, then breaks them off.

        Close the listeners first. Afterwards every lease is settled.
        """
        self.closing = True
        for caller in list(self._callers):
            caller.stop()
        await self._emptied(within)
        for caller in list(self._callers):
            caller.transport.abort()
        await self._emptied(None)
        await self.pool.close()

    async def _emptied(self, within: float | None) -> None:
        if self._callers:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._empty,), timeout=within)

    # What callers say of themselves.

    def opened(self, caller: Caller) -> None:
        self._callers.add(caller)
        if self._tick_due is None:
            self.now = self.time()
            self._tick_due = asyncio.get_running_loop().call_later(self._tick_every, self._tick)

    def closed(self, caller: Caller) -> None:
        self._callers.discard(caller)
        if not self._callers and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def hung_up(self, transport: asyncio.Transport) -> bool:
        """True when the other side has ended the connection, also while reading is paused."""
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return bool(poll.poll(0))

    def _tick(self) -> None:
        # One look at all connections costs less than a timer for each request.
        now = self.now = self.time()
        for caller in list(self._callers):
            if caller.deadline <= now:
                caller.overdue(now)
            elif caller.gone():
                caller.transport.abort()
            else:
                caller.comfort(now)
        self._tick_due = None
        if self._callers:
            self._tick_due = asyncio.get_running_loop().call_later(self._tick_every, self._tick)
