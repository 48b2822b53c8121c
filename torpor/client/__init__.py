"""The SDK: endpoints as objects, errors as classes. Only this package imports httpx."""

from torpor.client.asynchronous import AsyncClient, AsyncEndpoint
from torpor.client.mock import MockTransport
from torpor.client.sync import Client, Endpoint

__all__ = ["AsyncClient", "AsyncEndpoint", "Client", "Endpoint", "MockTransport"]
