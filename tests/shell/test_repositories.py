"""Pushed bentos and models: when a version is whole, what it may become, and where its bytes are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from router.core.artifacts import Artifact, Kind, Status
from router.core.catalog import Change, Learned, Registered
from router.core.settings import Settings
from router.depot.unpacked import DIGEST
from router.shell.repositories import Said
from tests.shell.pushing import Pushed, bento_tar, chunks, model_tar, push, pushed
from tests.shell.s3 import Server, s3_server
from torpor.errors import BadRequest, Conflict, ModelNotFound, NotFound

MODEL = model_tar("words:1", b"hello")
BENTO = bento_tar("greeter:1", "words:1", src__service=b"x")
LARGE = {"size_bytes": 1 << 30}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Pushed]:
    with pushed(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as started:
        yield started


@pytest.fixture
def in_s3(tmp_path: Path, server: Server) -> Iterator[Pushed]:
    with pushed(tmp_path, depot=server.depot) as made:
        yield made
    server.clear()


def use(here: Pushed, bento: str) -> None:
    """A revision runs on it."""
    entry = Registered("it", 1, bento, {}, Settings(), 1.0, Learned((), {}, {}, {}))
    asyncio.run(here.store.put(Change.of(entry)))


def get(here: Pushed, kind: Kind, tag: str) -> Artifact:
    name, _, version = tag.partition(":")
    return asyncio.run(here.repositories.get(kind, name, version))


def objects(here: Pushed) -> set[str]:
    return {each.digest for each in asyncio.run(here.depot.objects())}


def test_a_version_is_whole_when_its_bytes_have_come(here: Pushed) -> None:
    async def scenario() -> None:
        repositories = here.repositories
        with pytest.raises(NotFound, match="no repository 'words'"):
            await repositories.create(Kind.MODEL, "words", "1", Said())
        await repositories.create_repository(Kind.MODEL, "words")
        made = await repositories.create(Kind.MODEL, "words", "1", Said(manifest={"module": "m"}))
        assert (made.status, made.whole) == (Status.PENDING, False)
        assert await repositories.latest(Kind.MODEL, "words") is None
        assert (await repositories.start_upload(Kind.MODEL, "words", "1")).status == Status.UPLOADING
        whole = await repositories.upload(Kind.MODEL, "words", "1", chunks(MODEL))
        assert (whole.status, whole.digest, whole.size) == ("success", hashlib.sha256(MODEL).hexdigest(), len(MODEL))
        assert (await repositories.latest(Kind.MODEL, "words")) == whole
        size, stream = await repositories.open_tar(whole)
        assert b"".join([chunk async for chunk in stream]) == MODEL
        assert size == len(MODEL)

    asyncio.run(scenario())


def test_two_clients_that_register_the_same_make_one(here: Pushed) -> None:
    async def scenario() -> None:
        made = await asyncio.gather(*(here.repositories.create_repository(Kind.BENTO, "greeter") for _ in range(3)))
        assert len({each.name for each in made}) == 1
        puts = (push(here, Kind.MODEL, "words:1", MODEL) for _ in range(5))
        assert {each.digest for each in await asyncio.gather(*puts)} == {hashlib.sha256(MODEL).hexdigest()}
        assert len(await here.repositories.versions(Kind.MODEL, "words")) == 1

    asyncio.run(scenario())
    assert len(objects(here)) == 1


def test_newest_versions_come_first(here: Pushed) -> None:
    async def scenario() -> None:
        for version in ("b", "a", "c"):
            await push(here, Kind.MODEL, f"words:{version}", model_tar(f"words:{version}", b""))
        assert [each.version for each in await here.repositories.versions(Kind.MODEL, "words")] == ["c", "a", "b"]
        latest = await here.repositories.latest(Kind.MODEL, "words")
        assert latest is not None
        assert latest.version == "c"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (MODEL[:1024], "it is cut off"),
        (MODEL[:1124], "not a model's tar"),
        (model_tar("words:2", b"hello"), "holds the model words:2"),
        (model_tar("other:1", b"hello"), "holds the model other:1"),
        (bento_tar("words:1"), r"no model\.yaml at its top"),
        (b"PK" + bytes(3000), "not a model's tar"),
    ],
    ids=["cut between files", "cut in a header", "another version", "another name", "a bento", "no tar"],
)
def test_a_corrupted_upload_is_refused_with_its_reason_and_the_next_try_succeeds(
    here: Pushed, body: bytes, says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        asyncio.run(push(here, Kind.MODEL, "words:1", body))
    failed = get(here, Kind.MODEL, "words:1")
    assert failed.status is Status.FAILED
    assert failed.reason
    assert objects(here) == set()
    assert asyncio.run(push(here, Kind.MODEL, "words:1", MODEL)).status is Status.SUCCESS


def test_an_upload_with_another_digest_than_its_senders_is_refused(here: Pushed) -> None:
    async def scenario() -> None:
        await push(here, Kind.MODEL, "words:2", model_tar("words:2", b""))
        await here.repositories.create(Kind.MODEL, "words", "1", Said())
        damaged = MODEL.replace(b"hello", b"hallo")
        expected = hashlib.sha256(MODEL).hexdigest()
        with pytest.raises(BadRequest, match="damaged on its way"):
            await here.repositories.upload(Kind.MODEL, "words", "1", chunks(damaged), expected)
        assert (await here.repositories.get(Kind.MODEL, "words", "1")).status is Status.FAILED
        whole = await here.repositories.upload(Kind.MODEL, "words", "1", chunks(MODEL), expected.upper())
        assert whole.digest == expected

    asyncio.run(scenario())


def test_an_upload_that_breaks_off_leaves_a_whole_version_as_it_was(here: Pushed) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield MODEL[:700]
        raise ConnectionError

    async def scenario() -> None:
        before = await push(here, Kind.MODEL, "words:1", MODEL)
        assert (await here.repositories.start_upload(Kind.MODEL, "words", "1")).status is Status.SUCCESS
        with pytest.raises(ConnectionError):
            await here.repositories.upload(Kind.MODEL, "words", "1", broken())
        await here.repositories.fail(Kind.MODEL, "words", "1", "the upload broke off")
        after = await here.repositories.get(Kind.MODEL, "words", "1")
        assert (after.status, after.digest) == (before.status, before.digest)

    asyncio.run(scenario())
    assert list((here.folder / "incoming").iterdir()) == []


def test_the_same_bytes_pushed_again_and_again_are_one_object(here: Pushed) -> None:
    async def scenario() -> None:
        for _ in range(3):
            await push(here, Kind.BENTO, "greeter:1", BENTO)

    asyncio.run(scenario())
    assert objects(here) == {hashlib.sha256(BENTO).hexdigest()}


def test_a_bento_has_links_to_the_models_that_were_pushed(here: Pushed) -> None:
    asyncio.run(push(here, Kind.MODEL, "words:1", MODEL))
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO))
    needs = here.bentos.needs("greeter:1")
    model = needs.bento / "models" / "words" / "1"
    assert model.readlink() == here.folder / "models" / "words" / "1"
    assert (model / "weights").read_bytes() == b"hello"
    assert (needs.bento / "models" / "words" / "latest").read_text() == "1"
    assert here.bentos.needs("greeter:1") == needs
    assert needs.target == "service:It"


def test_a_bento_whose_model_was_not_pushed_says_so_until_it_is(
    here: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO))
    with pytest.raises(ModelNotFound, match="needs the model words:1"):
        here.bentos.needs("greeter:1")
    asyncio.run(push(here, Kind.MODEL, "words:1", MODEL))
    assert here.bentos.needs("greeter:1").bento.name == "1"


def test_a_bento_with_pushed_models_has_links_to_the_others_too(here: Pushed, tmp_path: Path) -> None:
    """BentoML looks into no other store, once a bento has one of its own."""
    own = ModelStore(tmp_path / "own")
    saved = tmp_path / "own" / "signs" / "7"
    saved.mkdir(parents=True)
    card = {
        "name": "signs",
        "version": "7",
        "module": "",
        "labels": {},
        "options": {},
        "metadata": {},
        "signatures": {},
    }
    context = {"framework_name": "", "framework_versions": {}, "bentoml_version": "1.4.39", "python_version": "3.11"}
    instants = {"creation_time": "2026-01-01T00:00:00+00:00", "api_version": "v1"}
    (saved / "model.yaml").write_text(yaml.safe_dump({**card, **instants, "context": context}))
    asyncio.run(push(here, Kind.MODEL, "words:1", MODEL))
    asyncio.run(push(here, Kind.BENTO, "greeter:1", bento_tar("greeter:1", "words:1", "signs:7")))
    BentoMLContainer.model_store.set(own)
    try:
        models = here.bentos.needs("greeter:1").bento / "models"
    finally:
        BentoMLContainer.model_store.reset()
    assert (models / "signs" / "7").readlink() == saved
    assert (models / "words" / "1" / "weights").read_bytes() == b"hello"
    assert {each.tag.name for each in ModelStore(models).list("signs")} == {"signs"}


def test_a_model_of_another_registry_is_registered_without_bytes(here: Pushed) -> None:
    async def scenario() -> None:
        await here.repositories.create_repository(Kind.MODEL, "org--it")
        manifest = {"metadata": {"registry": "huggingface"}}
        made = await here.repositories.create(Kind.MODEL, "org--it", "abc", Said(manifest=manifest))
        assert (made.status, made.whole) == (Status.SUCCESS, False)
        with pytest.raises(NotFound, match="has no bytes here"):
            await here.repositories.open_tar(made)

    asyncio.run(scenario())


def test_an_unpacked_copy_that_is_gone_comes_back_from_the_depot(here: Pushed) -> None:
    asyncio.run(push(here, Kind.MODEL, "words:1", MODEL))
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO))
    home = here.bentos.needs("greeter:1").bento
    for kind, name in ((Kind.BENTO, "greeter"), (Kind.MODEL, "words")):
        here.repositories.copies.of(kind).remove(name, "1")
    assert not home.exists()
    assert here.bentos.needs("greeter:1").bento == home
    assert (home / "models" / "words" / "1" / "weights").read_bytes() == b"hello"
    assert (home / DIGEST).read_text() == hashlib.sha256(BENTO).hexdigest()


def test_what_a_revision_runs_on_does_not_change(here: Pushed) -> None:
    asyncio.run(push(here, Kind.MODEL, "words:1", MODEL, {"module": "before"}))
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO, {"models": ["words:1"]}))
    use(here, "greeter:1")
    for kind, tag, body in (
        (Kind.BENTO, "greeter:1", bento_tar("greeter:1", "words:1", src__service=b"y")),
        (Kind.MODEL, "words:1", model_tar("words:1", b"hallo")),
    ):
        before = get(here, kind, tag)
        asyncio.run(here.repositories.update(kind, before.name, "1", Said(manifest={"module": "after"})))
        with pytest.raises(Conflict, match="is what a revision runs on, and this one is another"):
            asyncio.run(push(here, kind, tag, body))
        after = get(here, kind, tag)
        assert (after.status, after.digest, after.manifest) == (Status.SUCCESS, before.digest, before.manifest)
    service = here.bentos.path("greeter:1") / "src" / "service"
    assert service.read_bytes() == b"x"


def test_the_same_files_in_another_tar_are_no_change(here: Pushed) -> None:
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO))
    use(here, "greeter:1")
    before = get(here, Kind.BENTO, "greeter:1")
    reordered = bento_tar("greeter:1", "words:1", src__service=b"x") + bytes(1024)
    after = asyncio.run(push(here, Kind.BENTO, "greeter:1", reordered))
    assert (after.status, after.digest) == (Status.SUCCESS, before.digest)


def test_a_folder_from_before_there_were_repositories_does_not_change_either(here: Pushed) -> None:
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO))
    asyncio.run(here.repositories.rows.drop([get(here, Kind.BENTO, "greeter:1")]))
    (here.bentos.path("greeter:1") / DIGEST).unlink()
    use(here, "greeter:1")
    with pytest.raises(Conflict):
        asyncio.run(push(here, Kind.BENTO, "greeter:1", bento_tar("greeter:1", src__service=b"y")))
    assert (here.bentos.path("greeter:1") / "src" / "service").read_bytes() == b"x"
    assert asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO)).status is Status.SUCCESS
    assert (here.bentos.path("greeter:1") / DIGEST).exists()


def test_what_no_revision_runs_on_may_be_pushed_anew(here: Pushed) -> None:
    asyncio.run(push(here, Kind.BENTO, "greeter:1", BENTO, {"size_bytes": 1}))
    changed = bento_tar("greeter:1", src__service=b"y")
    after = asyncio.run(push(here, Kind.BENTO, "greeter:1", changed, {"size_bytes": 2}))
    assert after.manifest == {"size_bytes": 2}
    assert (here.bentos.path("greeter:1") / "src" / "service").read_bytes() == b"y"


def test_a_bento_under_development_is_complete_without_bytes_and_no_other(here: Pushed) -> None:
    async def scenario() -> None:
        await here.repositories.create_repository(Kind.BENTO, "greeter")
        await here.repositories.create(Kind.BENTO, "greeter", "1", Said(manifest={"dev": True}))
        done = await here.direct.finish(Kind.BENTO, "greeter", "1", "success", "bento for development")
        assert (done.status, done.reason) == (Status.SUCCESS, "bento for development")
        await here.repositories.create(Kind.BENTO, "greeter", "2", Said(manifest={}))
        with pytest.raises(BadRequest, match="nothing of the bento greeter:2 was uploaded"):
            await here.direct.finish(Kind.BENTO, "greeter", "2", "success", "")
        with pytest.raises(BadRequest, match="cannot end with 'done'"):
            await here.direct.finish(Kind.BENTO, "greeter", "2", "done", "")
        failed = await here.direct.finish(Kind.BENTO, "greeter", "2", "failed", "no way")
        assert (failed.status, failed.reason) == (Status.FAILED, "no way")

    asyncio.run(scenario())


async def sent(link: str, body: bytes) -> httpx.Response:
    return await asyncio.to_thread(httpx.put, link, content=body)


def test_an_upload_by_link_is_looked_into_before_it_counts(in_s3: Pushed, server: Server) -> None:
    async def scenario() -> None:
        at = (Kind.MODEL, "words", "1")
        await in_s3.repositories.create_repository(Kind.MODEL, "words")
        made = await in_s3.repositories.create(*at, Said())
        assert in_s3.direct.strategy(made) is None
        _, link = await in_s3.direct.put_link(*at)
        assert (await sent(link, model_tar("words:2", b""))).status_code == 200
        with pytest.raises(BadRequest, match="holds the model words:2"):
            await in_s3.direct.finish(*at, "success", "")
        _, link = await in_s3.direct.put_link(*at)
        assert (await sent(link, MODEL)).status_code == 200
        whole = await in_s3.direct.finish(*at, "success", "")
        assert whole.digest == hashlib.sha256(MODEL).hexdigest()
        _, link = await in_s3.direct.get_link(*at)
        assert (await asyncio.to_thread(httpx.get, link)).content == MODEL

    asyncio.run(scenario())
    digest = hashlib.sha256(MODEL).hexdigest()
    assert server.names() == [f"{digest[:2]}/{digest}"], "nothing is left of the upload"


def test_a_large_one_goes_in_parts_and_a_second_try_begins_anew(in_s3: Pushed, server: Server) -> None:
    body = model_tar("words:1", bytes(6 << 20))

    async def scenario() -> None:
        at = (Kind.MODEL, "words", "1")
        await in_s3.repositories.create_repository(Kind.MODEL, "words")
        assert in_s3.direct.strategy(await in_s3.repositories.create(*at, Said(manifest=LARGE))) == "presigned_url"
        broken = (await in_s3.direct.begin(*at)).upload
        again = (await in_s3.direct.begin(*at)).upload
        assert broken is not None
        assert again is not None
        with pytest.raises(BadRequest, match="is not the upload of words:1 that is under way"):
            await in_s3.direct.part_link(*at, broken["id"], 1)
        parts = []
        for number, part in enumerate((body[: 5 << 20], body[5 << 20 :]), 1):
            _, link = await in_s3.direct.part_link(*at, again["id"], number)
            parts.append((number, (await sent(link, part)).headers["ETag"]))
        await in_s3.direct.complete(*at, again["id"], parts)
        whole = await in_s3.direct.finish(*at, "success", "")
        assert (whole.size, whole.upload) == (len(body), None)

    asyncio.run(scenario())
    assert server.parts() == []
    assert len(server.names()) == 1


def test_a_pushed_bento_runs_from_s3(in_s3: Pushed) -> None:
    asyncio.run(push(in_s3, Kind.MODEL, "words:1", MODEL))
    asyncio.run(push(in_s3, Kind.BENTO, "greeter:1", BENTO))
    in_s3.repositories.copies.of(Kind.BENTO).remove("greeter", "1")
    model = in_s3.bentos.needs("greeter:1").bento / "models" / "words" / "1"
    assert (model / "weights").read_bytes() == b"hello"
    assert list((in_s3.folder / "incoming").iterdir()) == []
