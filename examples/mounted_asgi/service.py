# Shows an ASGI application of one's own (here Starlette's, with a WebSocket) beside a service's methods.

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"Hello, {request.query_params.get('name', 'world')}!")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


app = Starlette(routes=[Route("/page", page), WebSocketRoute("/echo", echo)])


@bentoml.service
@bentoml.asgi_app(app, path="/web")
class MountedAsgi:
    @bentoml.api
    def shout(self, text: str) -> str:
        return text.upper()
