"""The depot at both of its homes: a folder, and S3 (moto's server, a process of its own)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from router.depot.depot import Depot, Spooled
from router.depot.folder import FolderDepot
from router.depot.home import depot_of
from router.depot.s3 import PART, S3Depot
from router.depot.spool import BATCH, Spool
from tests.shell.pushing import chunks
from tests.shell.s3 import Server, s3_server
from torpor.errors import BadRequest, BodyTooLarge, InternalError, NotFound

BODY = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
LINKED, PARTED = "bento-" + "0" * 32, "model-" + "0" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as started:
        yield started


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "incoming")
    made.open()
    return made


@pytest.fixture(params=["folder", "s3", "s3 below a prefix"])
def depot(request: pytest.FixtureRequest, tmp_path: Path, spool: Spool) -> Iterator[Depot]:
    if request.param == "folder":
        yield FolderDepot(tmp_path / "depot")
    else:
        server: Server = request.getfixturevalue("server")
        yield server.depot(spool.folder, "team/one" if "prefix" in request.param else "")
        server.clear()


@pytest.fixture
def s3(server: Server, spool: Spool) -> Iterator[S3Depot]:
    yield server.depot(spool.folder)
    server.clear()


async def put(depot: Depot, spool: Spool, body: bytes, size: int = 65536) -> Spooled:
    async with spool.receive(chunks(body, size), 1 << 40) as spooled:
        await depot.take(spooled)
    return spooled


async def read(depot: Depot, digest: str) -> bytes:
    size, stream = await depot.open(digest)
    body = b"".join([chunk async for chunk in stream])
    assert size == len(body)
    return body


async def sent(link: str, body: bytes) -> httpx.Response:
    """As a client does it."""
    return await asyncio.to_thread(httpx.put, link, content=body)


def test_what_was_put_is_read_under_its_digest(depot: Depot, spool: Spool) -> None:
    async def scenario() -> None:
        spooled = await put(depot, spool, BODY)
        assert (spooled.digest, spooled.size) == (DIGEST, len(BODY))
        assert await read(depot, DIGEST) == BODY
        [found] = await depot.objects()
        assert (found.digest, found.size) == (DIGEST, len(BODY))

    asyncio.run(scenario())
    with depot.fetch(DIGEST) as path:
        assert path.read_bytes() == BODY
    assert list(spool.folder.iterdir()) == []


def test_the_same_bytes_are_one_object(depot: Depot, spool: Spool) -> None:
    async def scenario() -> None:
        await asyncio.gather(*(put(depot, spool, BODY) for _ in range(3)))
        await put(depot, spool, BODY)
        assert len(await depot.objects()) == 1
        assert await read(depot, DIGEST) == BODY

    asyncio.run(scenario())


def test_what_is_deleted_is_gone_and_may_be_deleted_again(depot: Depot, spool: Spool) -> None:
    async def scenario() -> None:
        await put(depot, spool, BODY)
        await depot.delete(DIGEST)
        await depot.delete(DIGEST)
        assert await depot.objects() == []
        with pytest.raises(NotFound, match=f"nothing under {DIGEST}"):
            await depot.open(DIGEST)

    asyncio.run(scenario())
    with pytest.raises(NotFound), depot.fetch(DIGEST):
        raise AssertionError("it is gone")


def test_a_large_file_goes_in_parts_and_comes_back_whole(depot: Depot, spool: Spool) -> None:
    body = random.Random(1).randbytes(1 << 20) * (2 * PART // (1 << 20)) + b"the end"

    async def scenario() -> None:
        spooled = await put(depot, spool, body, 1 << 20)
        assert spooled.size > 2 * PART
        assert hashlib.sha256(await read(depot, spooled.digest)).hexdigest() == spooled.digest

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
@pytest.mark.parametrize("piece", [1000, BATCH, 4 * BATCH])
def test_a_stream_of_any_shape_is_spooled_as_it_is(spool: Spool, size: int, piece: int) -> None:
    body = random.Random(size).randbytes(size)

    async def scenario() -> None:
        async with spool.receive(chunks(body, piece), 1 << 40) as spooled:
            assert spooled.path.read_bytes() == body
            assert (spooled.digest, spooled.size) == (hashlib.sha256(body).hexdigest(), size)

    asyncio.run(scenario())
    assert list(spool.folder.iterdir()) == []


def test_a_stream_that_breaks_or_is_too_long_leaves_nothing(spool: Spool) -> None:
    class Broken(Exception):
        pass

    async def breaking() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(BATCH)
        raise Broken

    async def take(stream: AsyncIterator[bytes], most: int) -> None:
        async with spool.receive(stream, most):
            raise AssertionError("it came whole")

    with pytest.raises(Broken):
        asyncio.run(take(breaking(), 1 << 40))
    with pytest.raises(BodyTooLarge, match=f"larger than {BATCH} bytes"):
        asyncio.run(take(chunks(bytes(BATCH + 1)), BATCH))
    assert list(spool.folder.iterdir()) == []


def test_a_cancelled_upload_waits_for_its_thread_and_leaves_nothing(spool: Spool) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(BATCH)
                begun.set()
                await asyncio.sleep(0)

        async def take() -> None:
            async with spool.receive(endless(), 1 << 40):
                raise AssertionError("it never ends")

        task = asyncio.create_task(take())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(scenario())
    assert list(spool.folder.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_that_changed_in_the_store_are_not_used(s3: S3Depot, server: Server, spool: Spool) -> None:
    asyncio.run(put(s3, spool, BODY))
    [key] = server.names()
    server.overwrite(key, BODY + b"!")
    with pytest.raises(InternalError, match="is something else"), s3.fetch(DIGEST):
        raise AssertionError("it is not what was put")
    assert list(spool.folder.iterdir()) == []


def test_links_lead_past_the_router(s3: S3Depot, server: Server, spool: Spool) -> None:
    async def scenario() -> None:
        link = await s3.put_link("one")
        assert (await sent(link, BODY)).status_code == 200
        assert b"".join([chunk async for chunk in await s3.read("one")]) == BODY
        await s3.settle("one", DIGEST)
        link = await s3.get_link(DIGEST, "one.tar")
        assert (await asyncio.to_thread(httpx.get, link)).content == BODY
        with pytest.raises(BadRequest, match="nothing has come"):
            await s3.read("one")

    asyncio.run(scenario())
    assert server.names() == [f"{DIGEST[:2]}/{DIGEST}"]


def test_parts_that_a_client_sends_are_put_together(s3: S3Depot, server: Server) -> None:
    parts = [random.Random(n).randbytes(5 << 20) for n in range(2)] + [b"the end"]

    async def scenario() -> None:
        upload = await s3.begin("one")
        tags = []
        for number, part in reversed(list(enumerate(parts, 1))):
            answer = await sent(await s3.part_link("one", upload, number), part)
            tags.append((number, answer.headers["ETag"]))
        with pytest.raises(BadRequest, match="not those that came"):
            await s3.complete("one", upload, [(1, '"0"')])
        await s3.complete("one", upload, tags)
        assert b"".join([chunk async for chunk in await s3.read("one")]) == b"".join(parts)

    asyncio.run(scenario())
    assert server.parts() == []


def test_uploads_that_nobody_ended_are_told_and_given_up(s3: S3Depot, server: Server) -> None:
    async def scenario() -> None:
        assert (await sent(await s3.put_link(LINKED), BODY)).status_code == 200
        upload = await s3.begin(PARTED)
        assert await s3.left(0.0) == []
        left = await s3.left(1e12)
        assert sorted(left) == [(f"incoming/{LINKED}", "", len(BODY)), (f"incoming/{PARTED}", upload, 0)]
        for place, number, _ in left:
            await s3.forget(place, number)
        assert await s3.left(1e12) == []
        await s3.abort(PARTED, upload)

    asyncio.run(scenario())
    assert (server.names(), server.parts()) == ([], [])


def test_an_upload_of_the_routers_own_that_was_killed_is_told_too(s3: S3Depot, server: Server) -> None:
    upload = server.begin(f"{DIGEST[:2]}/{DIGEST}")
    assert asyncio.run(s3.left(1e12)) == [(f"{DIGEST[:2]}/{DIGEST}", upload, 0)]
    asyncio.run(s3.forget(f"{DIGEST[:2]}/{DIGEST}", upload))
    assert server.parts() == []


def test_what_others_have_in_the_bucket_is_left_alone(s3: S3Depot, server: Server) -> None:
    for key in ("readme.txt", "incoming/mail", f"data/{DIGEST}", f"00/{DIGEST[:-2]}"):
        server.overwrite(key, b"theirs")
        server.begin(key)
    assert asyncio.run(s3.left(1e12)) == []
    assert asyncio.run(s3.objects()) == []


def test_a_store_that_cannot_be_reached_is_said_so(spool: Spool, server: Server) -> None:
    nowhere = S3Depot("nobodys", "", server.endpoint, spool.folder)
    with pytest.raises(InternalError, match=r"the store in S3 failed: .*NoSuchBucket") as raised:
        asyncio.run(put(nowhere, spool, BODY))
    assert "testing" not in raised.value.message, "no credentials"
    assert list(spool.folder.iterdir()) == []


def test_the_configuration_names_the_home(tmp_path: Path) -> None:
    assert isinstance(depot_of("", None, tmp_path, tmp_path), FolderDepot)
    assert isinstance(depot_of("s3://kept/team", "http://127.0.0.1:9", tmp_path, tmp_path), S3Depot)
