# Shows answers that arrive piece by piece: as plain text, and as server-sent events.

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

Event = Annotated[str, ContentType("text/event-stream")]


@bentoml.service
class Stream:
    @bentoml.api
    async def words(self, text: str, pause: float = 0.1) -> AsyncGenerator[str, None]:
        """The text, word by word, with `pause` seconds after each."""
        for word in text.split():
            yield word + " "
            await asyncio.sleep(pause)

    @bentoml.api
    async def events(self, upto: int = 3, pause: float = 0.1) -> AsyncGenerator[Event, None]:
        """Numbers as events; a browser's EventSource and every SSE client read them."""
        for number in range(upto):
            yield f"data: {json.dumps({'number': number})}\n\n"
            await asyncio.sleep(pause)
        yield "data: [DONE]\n\n"
