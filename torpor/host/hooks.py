"""A service's hooks beside those that BentoML's application runs: of its deployment, and of services inside of it.

`bentoml serve` gives a service that another depends on a process of its own, where its hooks run; here it lives in the
replica of the outer one (1.4.39, `_bentoml_impl/server/serving.py` and `app.py`).
"""

from __future__ import annotations

import inspect
from typing import Any

import anyio.to_thread
from _bentoml_impl.client import RemoteProxy
from bentoml._internal.utils import is_async_callable

Instance = tuple[Any, Any]  # a service and the object that serves it

STARTUP = "__bentoml_startup_hook__"
SHUTDOWN = "__bentoml_shutdown_hook__"
DEPLOYMENT = "__bentoml_deployment_hook__"


def on_deployment(service: Any) -> None:
    """Once a revision: resolves the models of the service and of those inside of it, and runs their hooks."""
    for each in service.all_services(exclude_urls=True).values():
        for model in each.models:
            model.resolve()
        for hook in _hooks(each, DEPLOYMENT):
            getattr(each.inner, hook)()


async def start_inner(service: Any) -> list[Instance]:
    """Makes and starts the services that this one depends on, the innermost first."""
    started: list[Instance] = []
    for dependency in service.dependencies.values():
        if dependency.on is None or dependency.url or dependency.deployment:
            continue  # it runs elsewhere
        started += await start_inner(dependency.on)
        instance = dependency.__get__(service, type(service))
        if not isinstance(instance, RemoteProxy):
            await run(dependency.on, instance, STARTUP)
            started.append((dependency.on, instance))
    return started


async def run(service: Any, instance: Any, kind: str) -> None:
    for hook in _hooks(service, kind):
        result = getattr(instance, hook)()
        if inspect.isawaitable(result):
            await result


async def is_ready(service: Any, instance: Any) -> bool:
    """What the service's own `__is_ready__` says; True where it has none."""
    if not hasattr(service.inner, "__is_ready__"):
        return True
    if is_async_callable(service.inner.__is_ready__):
        return bool(await instance.__is_ready__())
    return bool(await anyio.to_thread.run_sync(instance.__is_ready__))


def _hooks(service: Any, kind: str) -> list[str]:
    members = ((name, getattr(service.inner, name)) for name in dir(service.inner) if not name.startswith("__"))
    return [name for name, member in members if callable(member) and getattr(member, kind, False)]
