"""The TCP ports: the main one, and those that endpoints have of their own."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from router.proxy.proxy import Proxy
from torpor.errors import Conflict

log = logging.getLogger("torpor.listeners")

HANDSHAKE_WITHIN = 10.0  # seconds
GOODBYE_WITHIN = 5.0  # seconds that a caller may take to end TLS
RETRY_EVERY = 2.0  # seconds between two tries of a port that something else has


class Listeners:
    """`proxy` serves what comes in; it is set before the first `open`. `tls`: all ports speak HTTPS with it.

    `let_go` is called with each port that is about to be opened: whoever keeps it for that gives it up.
    """

    def __init__(self, host: str, tls: ssl.SSLContext | None = None, retry_every: float = RETRY_EVERY) -> None:
        self.proxy: Proxy | None = None
        self.let_go: Callable[[int], None] = lambda port: None
        self._host = host
        self._tls: dict[str, Any] = {}
        if tls is not None:
            within = {"ssl_handshake_timeout": HANDSHAKE_WITHIN, "ssl_shutdown_timeout": GOODBYE_WITHIN}
            self._tls = {"ssl": tls, **within}
        self._retry_every = retry_every
        self._servers: dict[int, asyncio.AbstractServer] = {}
        self._lacking: dict[int, Conflict] = {}

    async def open(self, port: int, main: bool = False) -> int:
        """The port that listens. Raises Conflict where it cannot be had."""
        assert self.proxy is not None
        factory = self.proxy.protocol_factory(None if main else port)
        try:
            loop = asyncio.get_running_loop()
            self.let_go(port)
            server = await loop.create_server(factory, self._host, port, backlog=2048, **self._tls)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Conflict(
                f"port {port} of {self._host} cannot be had: {reason}\nfree it, or choose another port"
            ) from None
        bound = int(server.sockets[0].getsockname()[1])
        self._servers[bound] = server
        return bound

    async def reopen(self, ports: Iterable[int]) -> None:
        """Opens the ports of endpoints that were there before; one that cannot be had is told, and tried again."""
        for port in ports:
            try:
                await self.open(port)
            except Conflict as error:
                self._lacking[port] = error
                log.error("%s", error.message.replace("\n", "; it is tried again until then: "))

    async def retry(self) -> None:
        """Tries for ever to get the ports that are lacking."""
        while True:
            await asyncio.sleep(self._retry_every)
            for port in list(self._lacking):
                await self._try_again(port)

    async def _try_again(self, port: int) -> None:
        try:
            await self.open(port)
        except Conflict as error:
            if port in self._lacking:
                self._lacking[port] = error
            return
        if self._lacking.pop(port, None) is None:
            self.close(port)  # its endpoint went meanwhile
        else:
            log.info("port %d of %s is ours now", port, self._host)

    def fault(self, port: int | None) -> str | None:
        """Why an endpoint's own port does not listen, None when it does."""
        error = self._lacking.get(port) if port is not None else None
        return None if error is None else error.message

    def close(self, port: int) -> None:
        """Takes no more connections there; those that exist go on."""
        self._lacking.pop(port, None)
        server = self._servers.pop(port, None)
        if server is not None:
            server.close()

    def close_all(self) -> None:
        for port in list(self._servers):
            self.close(port)
        self._lacking.clear()
