"""A service's proxy to itself, which BentoML makes at every start and few services use: here it is made when used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _bentoml_impl.client import RemoteProxy

NOWHERE = "http://localhost:3000"  # as BentoML names it; calls go to the application in this process


class SelfProxy:
    """Stands for BentoML's RemoteProxy of the service to `app`, an ASGI application of this process."""

    def __init__(self, service: Any, app: Any) -> None:
        self._service = service
        self._app = app
        self._made: Any = None

    def made(self) -> Any:
        if self._made is None:
            proxy = RemoteProxy(NOWHERE, service=self._service, app=self._app, media_type="application/json")
            entering = proxy.__aenter__()
            try:
                entering.send(None)  # a proxy that knows its service and its application awaits nothing (1.4.39)
            except StopIteration:
                self._made = proxy
            else:
                entering.close()
                raise RuntimeError("this version of BentoML asks the network about a service in the same process")
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    def __getattr__(self, name: str) -> Any:
        if name in self._service.apis:  # asked for at every call, for its `local` alone
            return Late(lambda: getattr(self.made(), name))
        return getattr(self.made(), name)


class Late:
    """An object that is made when it is first looked at."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._make()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)
