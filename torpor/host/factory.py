"""BentoML's factory of a service's application, with our batches and with an eye on what a call leaves running."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from _bentoml_impl.client import RemoteProxy
from _bentoml_impl.server.app import ServiceAppFactory
from _bentoml_impl.tasks import Sqlite3Store
from _bentoml_sdk.service import set_current_service
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context, trace_context
from bentoml._internal.runner.container import AutoContainer
from bentoml._internal.utils import is_async_callable
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor.host import hooks
from torpor.host.batch import Batches
from torpor.host.itself import Late, SelfProxy
from torpor.host.work import WORK

log = logging.getLogger("bentoml.serve")  # as BentoML's own


class Factory(ServiceAppFactory):  # type: ignore[misc]  # BentoML is untyped here
    """Everything that a service is served by: its instance, its dispatchers, and BentoML's application when called."""

    service: Any

    def __init__(self, service: Any) -> None:
        super().__init__(service, is_main=True)
        self.inner: list[hooks.Instance] = []
        self._made: Any = None
        self._proxy: SelfProxy
        self._server = f"BentoML Service/{service.name}"
        self.server = self._server.encode()
        self._id_format: str = BentoMLContainer.logging_formatting.get()["span_id"]
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

    def make_instance(self) -> None:
        """Makes the service's instance before there is an event loop; `create_instance` then starts it."""
        self._made = self.service()

    def make_ready(self) -> None:
        """In a template: what the first call would make anew in every fork."""
        self.make_instance()
        for method in self.service.apis.values():
            method.output_spec.mime_type()
        if self.dispatchers:
            _ = self.adaptive_batch_size_hist

    def forked(self) -> None:
        """In a fork: the metrics are this process's own."""
        client = BentoMLContainer.metrics_client.get()
        if client._pid is not None:
            client._pid = os.getpid()

    async def create_instance(self, app: Any) -> None:
        """As BentoML's, but that the service's proxy to itself, milliseconds of work, is made when it is used."""
        self.inner = await hooks.start_inner(self.service)
        if self._made is None:
            self.make_instance()
        self._service_instance = instance = self._made
        self.service.gradio_app_startup_hook(max_concurrency=self.max_concurrency)
        log.info("Service %s initialized", self.service.name)
        await hooks.run(self.service, instance, hooks.STARTUP)
        await asyncio.gather(*(proxy.__aenter__() for proxy in self._elsewhere(instance)))
        self._proxy = SelfProxy(self.service, app)
        instance.__self_proxy__ = self._proxy
        instance.to_async = Late(lambda: self._proxy.made().to_async)
        instance.to_sync = Late(lambda: self._proxy.made().to_sync)
        set_current_service(instance)
        if self.service.needs_task_db():
            self._result_store = Sqlite3Store(BentoMLContainer.result_store_file.get())
            await self._result_store.__aenter__()

    def _elsewhere(self, instance: Any) -> list[Any]:
        """Proxies of the services that this one depends on and that run elsewhere."""
        found = (getattr(instance, name) for name in self.service.dependencies)
        return [each for each in found if isinstance(each, RemoteProxy)]

    async def destroy_instance(self, app: Any) -> None:
        try:
            await super().destroy_instance(app)
        finally:
            await self._proxy.close()
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

    def _add_response_headers(self, resp: Response) -> None:
        """As BentoML's, with its configuration looked up once. Its header of trace ids is not for a plain service."""
        if not self.plain_headers:
            super()._add_response_headers(resp)
            return
        headers = resp.headers
        headers["Server"] = self._server
        if trace_context.request_id is not None:
            headers["X-BentoML-Request-ID"] = format(trace_context.request_id, self._id_format)

    def written(self, request_id: int) -> bytes:
        """A request's id as a header says it."""
        return format(request_id, self._id_format).encode()

    @functools.cached_property
    def plain_headers(self) -> bool:
        return not BentoMLContainer.http.response.trace_id.get()

    async def batch_infer(self, name: str, input_args: tuple[Any, ...], input_kwargs: dict[str, Any]) -> Any:
        """As BentoML's, but that a call whose batch has ended already has its outcome from there."""
        outcome = OUTCOME.get()
        if outcome is None:
            return await super().batch_infer(name, input_args, input_kwargs)
        OUTCOME.set(None)
        if outcome.response is not None:
            self.service.context.response.background.tasks.extend(outcome.response.background.tasks)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    async def run_batch(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        """What BentoML gives its dispatcher, for calls whose method has this one argument."""
        method = self.service.apis[name]
        func = getattr(self._service_instance, name).local
        if self.enable_metrics:
            self.adaptive_batch_size_hist.labels(
                runner_name=self.service.name,
                worker_index=server_context.worker_index,
                method_name=name,
                service_version=server_context.bento_version,
                service_name=server_context.bento_name,
            ).observe(len(values))
        batch, indices = AutoContainer.batches_to_batch(values, method.batch_dim[0])
        # Not shielded as a call's own thread is: nobody cancels a batch.
        result = await func(batch) if is_async_callable(func) else await super()._to_thread(func, batch)
        return list(AutoContainer.batch_to_batches(result, indices, method.batch_dim[1]))

    async def _to_thread(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        job = asyncio.ensure_future(super()._to_thread(func, *args, **kwargs))
        if (work := WORK.get()) is not None:
            work.add(job)
        return await asyncio.shield(job)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call's batch. `response` is BentoML's of the call in whose context the batch ran."""

    result: Any = None
    error: Exception | None = None
    response: Any = None


OUTCOME: ContextVar[Outcome | None] = ContextVar("outcome", default=None)  # of the call that this task answers


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
    if type(value) is list:
        return len(value)
    size = AutoContainer.get_batch_size(value, batch_dim=batch_dim)
    return int(size[batch_dim] if isinstance(size, tuple) else size)  # BentoML gives a data frame's whole shape
