"""Builds by an engine that fails in the ways of Docker, or goes away in the midst: recorded streams, a real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from router.launch.container.api import ContainerApi
from router.launch.container.images import Images
from tests.containers.bentos import bento
from torpor.errors import DiskFull, EngineFailed, EngineUnreachable, InvalidService, TorporError

Streams = list[list[dict[str, Any]]]
STEP = {"stream": "Step 1/2 : RUN it\n"}
WENT = {"went": True}  # the engine ends here, without another word
CUT = {"cut": True}  # in the midst of its answer
DIED = {"died": True}  # and is not there any more


class Engine:
    """Answers each build with the next of `streams`; it has the images that were built to their end."""

    def __init__(self, socket: Path, streams: Streams) -> None:
        self._socket = socket
        self._streams = iter(streams)
        self._runner: web.AppRunner | None = None
        self.images: dict[str, str] = {}
        self.bodies: list[bytes] = []

    async def open(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/{version}/images/json", self._list)
        app.router.add_get("/{version}/images/{name:.+}/json", self._show)
        app.router.add_post("/{version}/build", self._build)
        app.router.add_get("/{version:v?[^/]*}", self._version)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.24", "Version": "20.10", "Components": []})

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response([])

    async def _show(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name in self.images:
            return web.json_response({"Id": self.images[name]})
        return web.json_response({"message": "no such image"}, status=404)

    async def _build(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        answer = web.StreamResponse(headers={"content-type": "application/json"})
        await answer.prepare(request)
        for told in next(self._streams):
            if told is WENT:
                return answer
            if told in (CUT, DIED):
                if told is DIED:
                    self._socket.unlink()
                assert request.transport is not None
                request.transport.abort()
                return answer
            await answer.write(json.dumps(told).encode() + b"\r\n")
            if "error" in told:
                return answer
        self.images[request.query["t"]] = f"sha256:of-{request.query['t'].partition(':')[0]}"
        return answer


@asynccontextmanager
async def started(folder: Path, streams: Streams) -> AsyncIterator[tuple[Images, Engine]]:
    engine = Engine(folder / "engine.sock", streams)
    await engine.open()
    api = ContainerApi(folder / "engine.sock")
    try:
        yield Images(api, "of-tests", None, folder / "spool"), engine
    finally:
        await api.close()
        await engine.close()


def play(folder: Path, streams: Streams, work: Callable[[Images, Engine], Awaitable[None]]) -> None:
    async def run() -> None:
        async with started(folder, streams) as (images, engine):
            await work(images, engine)

    asyncio.run(run())
    assert list((folder / "spool").glob("*")) == []


def test_an_image_is_built_on_its_ground_which_another_bento_finds(tmp_path: Path) -> None:
    async def work(images: Images, engine: Engine) -> None:
        heard: list[str] = []
        assert await images.of(bento(tmp_path, "one"), "", heard.append) == "of-torpor-bento"
        assert heard == [heard[0], "ground", "packages"]
        other = bento(tmp_path, "two", requirements="bentoml\nemoji\n")
        assert await images.of(other, "", heard.append) == "of-torpor-bento"
        assert len(engine.bodies) == 3
        assert [b"FROM of-torpor-ground\n" in body for body in engine.bodies] == [False, True, True]

    play(tmp_path, [[{"stream": "ground\n"}], [{"stream": "packages\n"}], [{"stream": "others\n"}]], work)


@pytest.mark.parametrize(
    ("stream", "error", "words"),
    [
        (
            [STEP, {"stream": "why"}, {"error": "returned a non-zero code: 1"}],
            InvalidService,
            "why | returned a non-",
        ),
        ([STEP, {"stream": "write: No space left on device\n"}, {"error": "code: 1"}], DiskFull, "No space left"),
        ([STEP, {"error": "write /layer: no space left on device"}], DiskFull, "No space left"),
        ([STEP, WENT], EngineFailed, "left off building"),
        ([STEP, CUT], EngineUnreachable, "does not answer"),
        ([STEP, DIED], EngineUnreachable, "does not answer"),
    ],
)
def test_what_hinders_a_build_is_told_apart(
    tmp_path: Path, stream: list[dict[str, Any]], error: type[TorporError], words: str
) -> None:
    async def work(images: Images, _: Engine) -> None:
        with pytest.raises(error) as raised:
            await images.of(bento(tmp_path), "", lambda line: None)
        assert words in str(raised.value)

    play(tmp_path, [stream], work)


def test_contexts_that_a_killed_router_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "image-0123456789abcdef.tar").write_bytes(b"half")

    async def work(images: Images, _: Engine) -> None:
        await images.of(bento(tmp_path), "", lambda line: None)

    play(tmp_path, [[], []], work)
