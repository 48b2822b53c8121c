"""What most services do: JSON, models, root inputs, context, streams, batches, tasks, errors."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from http import HTTPStatus
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)] = 7
    tags: list[str] = []


class Greeting(BaseModel):
    text: str
    person: Person
    score: float = 0.1


class Teapot(bentoml.exceptions.BentoMLException):
    error_code = HTTPStatus.IM_A_TEAPOT


@bentoml.service
class Wide:
    def __init__(self) -> None:
        self.count = 0

    @bentoml.api
    def greet(self, person: Person, text: str = "hello", mood: Literal["good", "bad"] = "good") -> Greeting:
        return Greeting(text=f"{text} {mood}", person=person)

    @bentoml.api
    async def add(self, a: int, b: int = 2) -> int:
        return a + b

    @bentoml.api
    def text(self, word: str) -> str:
        return word * 2

    @bentoml.api
    def nothing(self) -> None:
        return None

    @bentoml.api
    def anything(self, value: Any) -> Any:
        return value

    @bentoml.api
    def root(self, person: Person, /) -> dict[str, Any]:
        return person.model_dump()

    @bentoml.api
    def root_text(self, word: str, /) -> str:
        return word.upper()

    @bentoml.api
    def root_list(self, numbers: list[int] = [1], /) -> list[int]:  # noqa: B006 - BentoML reads the default only
        return numbers[::-1]

    @bentoml.api
    def keywords(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    @bentoml.api
    def positional(self, *args: int) -> Any:
        return list(args)

    @bentoml.api(route="/")
    def at_the_root(self, a: int = 3) -> int:
        return -a

    @bentoml.api(route="/deep/er")
    def routed(self, a: int = 1) -> list[int]:
        return [a]

    @bentoml.api(input_spec=Person)
    def specified(self, **person: Any) -> Any:
        return person

    @bentoml.api
    def optional(self, word: str | None = None) -> str | None:
        return word

    @bentoml.api
    def binary(self) -> bytes:
        return bytes(range(200, 256))

    @bentoml.api
    def typed(self) -> Annotated[str, bentoml.validators.ContentType("text/markdown")]:
        return "# title"

    @bentoml.api
    def unsuitable(self) -> int:
        return "not a number"  # type: ignore[return-value]  # on purpose

    # Context

    @bentoml.api
    def context(self, ctx: bentoml.Context, a: str = "x") -> dict[str, Any]:
        ctx.response.headers["X-Own"] = f"own-{a}"
        ctx.response.headers["Cache-Control"] = "no-store"
        ctx.response.status_code = 202
        ctx.response.cookies = [
            bentoml.Cookie("one", "1", None, None, "/", None, False, False, "lax"),
            bentoml.Cookie("two", "2", 60, None, "/far", None, True, True, "strict"),
        ]
        request = ctx.request
        return {
            "method": request.method,
            "sent": request.headers.get("x-sent"),
            "cookie": request.cookies.get("c"),
            "query": dict(request.query_params),
            "type": request.headers.get("content-type"),
        }

    @bentoml.api
    async def context_unasked(self) -> str:
        return str(bentoml.server_context.service_type)

    @bentoml.api
    def state(self, ctx: bentoml.Context) -> int:
        ctx.state["n"] = int(ctx.state.get("n", 0)) + 1
        return int(ctx.state["n"])

    @bentoml.api
    def served_as(self) -> dict[str, Any]:
        server = bentoml.server_context
        return {"type": server.service_type, "service": server.service_name, "routes": sorted(server.service_routes)}

    # Responses of their own

    @bentoml.api
    def own_response(self) -> Any:
        return JSONResponse({"own": True}, status_code=203, headers={"X-Own": "yes"})

    @bentoml.api
    def own_response_after(self) -> Any:
        return PlainTextResponse("done", background=BackgroundTask(self._grow))

    def _grow(self) -> None:
        self.count += 1

    @bentoml.api
    def grown(self) -> int:
        return self.count

    @bentoml.api
    async def own_events(self) -> Any:
        return StreamingResponse(iter(["data: 1\n\n", "data: 2\n\n"]), media_type="text/event-stream")

    @bentoml.api
    async def own_stream(self, ctx: bentoml.Context) -> Any:
        ctx.response.headers["X-Own"] = "stream"
        return StreamingResponse(iter(["a", "b"]), media_type="text/x-own")

    # Streams

    @bentoml.api
    async def typed_stream(self) -> AsyncGenerator[Annotated[str, bentoml.validators.ContentType("text/csv")], None]:
        yield "a,b"

    @bentoml.api
    def count_up(self, to: int = 3) -> Generator[str, None, None]:
        for number in range(to):
            yield f"{number}\n"

    @bentoml.api
    async def events(self, ctx: bentoml.Context) -> AsyncGenerator[str, None]:
        ctx.response.headers["Content-Type"] = "text/event-stream"
        for number in range(3):
            yield f"data: {number}\n\n"

    @bentoml.api
    async def models(self) -> AsyncGenerator[Person, None]:
        yield Person(name="a")
        yield Person(name="b")

    @bentoml.api
    async def empty_stream(self) -> AsyncGenerator[str, None]:
        for word in "":
            yield word

    @bentoml.api
    async def breaks_at_once(self) -> AsyncGenerator[str, None]:
        raise ValueError("at once")
        yield ""

    @bentoml.api
    def breaks_at_once_in_a_thread(self) -> Generator[str, None, None]:
        raise ValueError("at once")
        yield ""

    @bentoml.api
    async def breaks_midway(self) -> AsyncGenerator[str, None]:
        yield "begun"
        raise ValueError("midway")

    @bentoml.api
    async def stream_with_context(self, ctx: bentoml.Context) -> AsyncGenerator[str, None]:
        ctx.response.headers["X-Own"] = "late"
        yield "a"

    # Errors

    @bentoml.api
    def divide(self, a: int, b: int) -> float:
        return a / b

    @bentoml.api
    async def raises(self, kind: str) -> str:
        raise {
            "invalid": bentoml.exceptions.InvalidArgument("a bad argument"),
            "missing": bentoml.exceptions.NotFound("nothing there"),
            "unavailable": bentoml.exceptions.ServiceUnavailable("not now"),
            "teapot": Teapot("short and stout"),
            "forbidden": _with_status(HTTPStatus.FORBIDDEN),
            "unauthorized": _with_status(HTTPStatus.UNAUTHORIZED),
            "plain": bentoml.exceptions.BentoMLException("plain"),
            "validation": _validation_error(),
        }[kind]

    # Arrays and batches

    @bentoml.api
    def double(self, array: np.ndarray) -> np.ndarray:
        return array * 2

    @bentoml.api
    def root_double(self, array: np.ndarray, /) -> np.ndarray:
        return array * 2

    @bentoml.api
    def typed_array(
        self, array: Annotated[np.ndarray, bentoml.validators.DType("float32"), bentoml.validators.Shape((2, 2))]
    ) -> np.ndarray:
        return array + 1

    @bentoml.api(batchable=True, max_batch_size=8)
    def batched(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @bentoml.api(batchable=True, max_batch_size=8)
    async def batched_array(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows.sum(axis=1))

    @bentoml.api(batchable=True)
    def batched_short(self, texts: list[str]) -> list[str]:
        return texts[1:]

    @bentoml.api(batchable=True)
    def batched_breaks(self, texts: list[str]) -> list[str]:
        raise bentoml.exceptions.InvalidArgument("the whole batch")

    @bentoml.api(batchable=True)
    def batched_with_context(self, texts: list[str], ctx: bentoml.Context) -> list[str]:
        ctx.response.headers["X-Own"] = "batch"
        return texts

    # Tasks

    @bentoml.task
    def long(self, seconds: float = 0.0) -> str:
        time.sleep(seconds)
        return "done"

    @bentoml.task
    async def breaks_later(self) -> str:
        raise ValueError("later")

    # Calls of itself

    @bentoml.api
    async def itself(self, a: int) -> int:
        return int(await self.to_async.add(a=a, b=40))  # type: ignore[attr-defined]  # BentoML's


def _with_status(status: HTTPStatus) -> bentoml.exceptions.BentoMLException:
    return bentoml.exceptions.BentoMLException("no", error_code=status)


def _validation_error() -> Exception:
    try:
        Person(age="x")  # type: ignore[call-arg, arg-type]  # on purpose
    except ValueError as error:
        return error
    raise AssertionError
