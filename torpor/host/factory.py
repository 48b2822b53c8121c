"""BentoML's factory of a service's application, with our batches and with an eye on what a call leaves running."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from _bentoml_impl.server.app import ServiceAppFactory
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.runner.container import AutoContainer
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor.host import hooks
from torpor.host.batch import Batches
from torpor.host.work import WORK


class Factory(ServiceAppFactory):  # type: ignore[misc]  # BentoML is untyped here
    """Everything that a service is served by: its instance, its dispatchers, and BentoML's application when called."""

    def __init__(self, service: Any) -> None:
        super().__init__(service, is_main=True)
        self.inner: list[hooks.Instance] = []
        for name in self.dispatchers:
            method = service.apis[name]
            sizes = [functools.partial(items, batch_dim=dim) for dim in method.batch_dim]
            self.dispatchers[name] = Batches(int(method.max_batch_size), *sizes)

    @property
    def plain(self) -> bool:
        """Whether a call goes through no middleware whose effect a caller or a user's tracing would miss."""
        config = BentoMLContainer.config
        return not (
            self.service.middlewares
            or self.service.mount_apps
            or self.enable_access_control
            or self.max_concurrency
            or config.tracing.exporter_type.get()
            or BentoMLContainer.http.response.trace_id.get()
        )

    @property
    def in_flight_limit(self) -> int | None:
        """How many calls the service takes at once, None for any number; above it BentoML answers 429."""
        return int(self.max_concurrency) if self.max_concurrency else None

    @property
    def middlewares(self) -> list[Middleware]:
        return [*super().middlewares, Middleware(Watched)]

    async def create_instance(self, app: Any) -> None:
        self.inner = await hooks.start_inner(self.service)
        await super().create_instance(app)

    async def destroy_instance(self, app: Any) -> None:
        try:
            await super().destroy_instance(app)
        finally:
            for service, instance in reversed(self.inner):
                await hooks.run(service, instance, hooks.SHUTDOWN)

    async def ready(self) -> bool:
        """Whether the service, and each inside of it, says that it is. An error counts as no, as BentoML counts it."""
        try:
            for each in (*self.inner, (self.service, self._service_instance)):
                if not await hooks.is_ready(*each):
                    return False
        except Exception:  # the service's own method may raise anything
            return False
        return True

    async def _to_thread(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        job = asyncio.ensure_future(super()._to_thread(func, *args, **kwargs))
        if (work := WORK.get()) is not None:
            work.add(job)
        return await asyncio.shield(job)


class Inner:
    """What is known of the part of BentoML's application within its middleware, for one call."""

    def __init__(self) -> None:
        self._running = self._begun = False
        self.over = asyncio.Event()

    @property
    def overtaken(self) -> bool:
        """An answer that begins now is not its own, and it still runs: the deadline's middleware answers."""
        return self._running and not self._begun

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def begin(message: Message) -> None:
            self._begun = True
            await send(message)

        self._running = True
        try:
            await app(scope, receive, begin)
        finally:
            self._running = False
            self.over.set()


INNER: ContextVar[Inner | None] = ContextVar("inner", default=None)  # of the call that the current task belongs to


class Watched:
    """The innermost middleware: tells the call's `Inner` what happens inside."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = INNER.get() if scope["type"] == "http" else None
        if inner is None:
            await self._app(scope, receive, send)
        else:
            await inner.run(self._app, scope, receive, send)


def items(value: Any, batch_dim: int) -> int:
    """How many items a batchable method gets with this value."""
    size = AutoContainer.get_batch_size(value, batch_dim=batch_dim)
    return int(size[batch_dim] if isinstance(size, tuple) else size)  # BentoML gives a data frame's whole shape
