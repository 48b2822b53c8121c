"""Connections to replicas, kept alive: one list of idle ones per address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from router.proxy.answer import Answers
from router.proxy.replica import Replica

if TYPE_CHECKING:
    from router.proxy.calls import Calls
    from router.proxy.exchange import Exchange

_LAST_WORDS: Final = 1.0  # seconds from a replica's exit until its connections are cut
_BACKLOG_PAUSE: Final = 0.005  # seconds between tries while a replica's accept queue is full


class Pool:
    """Owns every connection to a replica; the newest idle one is used first, so that the others can age out."""

    def __init__(self, calls: Calls, max_idle: int) -> None:
        self.calls = calls
        self.answers = Answers()
        self._max_idle = max_idle
        self._idle: dict[str, list[Replica]] = {}
        self._all: set[Replica] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    def take(self, address: str, exchange: Exchange) -> None:
        """Gives the exchange a connection: `connected` now or later, or `unreachable`, unless it is over by then."""
        idle = self._idle.get(address)
        while idle:
            replica = idle.pop()
            if not replica.transport.is_closing():
                exchange.connected(replica)
                return
        task = asyncio.get_running_loop().create_task(self._connect(address, exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, address: str, exchange: Exchange) -> None:
        lease = exchange.lease
        try:
            replica = await self._open(address, exchange)
        except OSError as fault:
            if not exchange.over and exchange.lease is lease:
                exchange.unreachable(fault)
            return
        if replica is None:
            return
        self._all.add(replica)
        if self._closed or exchange.over or exchange.lease is not lease:
            self.put(replica)
        else:
            exchange.connected(replica)

    async def _open(self, address: str, exchange: Exchange) -> Replica | None:
        """None when the exchange ended meanwhile."""
        loop = asyncio.get_running_loop()
        while not exchange.over:
            try:
                _, replica = await loop.create_unix_connection(lambda: Replica(self, address), address)
                return replica
            except BlockingIOError:
                # The accept queue is full: a replica that lives and is slow, which no Unix socket waits for.
                await asyncio.sleep(_BACKLOG_PAUSE)
        return None

    def put(self, replica: Replica) -> None:
        """Takes back a connection that is ready for the next exchange."""
        idle = self._idle.get(replica.address)
        if idle is None:
            idle = self._idle[replica.address] = []
        if self._closed or len(idle) >= self._max_idle:
            replica.transport.close()
        elif not replica.transport.is_closing():
            idle.append(replica)

    def lost(self, replica: Replica) -> None:
        """The connection has ended."""
        self._all.discard(replica)
        idle = self._idle.get(replica.address)
        if idle is not None:
            if replica in idle:
                idle.remove(replica)
            if not idle:  # addresses come and go with their replicas
                del self._idle[replica.address]
        if self._empty is not None and not self._all and not self._empty.done():
            self._empty.set_result(None)

    def gone(self, address: str) -> None:
        """A replica has exited: connections that a child of its holds open would never say so.

        What it had answered before may still have to be read, hence the pause.
        """
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._cut, address)

    def _cut(self, address: str) -> None:
        for replica in [each for each in self._all if each.address == address]:
            replica.transport.abort()

    async def close(self) -> None:
        """Ends every connection; leases that are still held are settled by it."""
        self._closed = True
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        if self._all:
            self._empty = asyncio.get_running_loop().create_future()
            for replica in list(self._all):
                replica.transport.abort()
            await self._empty
