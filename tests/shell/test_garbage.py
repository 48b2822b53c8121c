"""What no revision uses: told before it is freed, and never what is young, used, or on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.core.artifacts import Kind
from router.core.catalog import Change, Registered
from router.core.settings import Settings
from router.garbage import AGE, UPLOAD_AGE, Garbage, Unused
from router.launch.environment import key_of
from router.shell.repositories import Said
from tests.shell.pushing import Pushed, bento_tar, model_tar, push, pushed
from tests.shell.s3 import Server, s3_server
from torpor.errors import EngineFailed, EngineUnreachable, InvalidService, NotFound, TorporError

LISTED = b"numpy==1.0\n"


class Clock:
    """The present, and `later` seconds."""

    def __init__(self) -> None:
        self.later = 0.0

    def __call__(self) -> float:
        return time.time() + self.later


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Pushed]:
    with pushed(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def garbage(here: Pushed, clock: Clock) -> Garbage:
    return Garbage(here.repositories, here.folder / "environments", clock)


def fill(here: Pushed) -> None:
    """Two bentos with a model each, and an environment each."""
    for name in ("old", "new"):
        asyncio.run(push(here, Kind.MODEL, f"of-{name}:1", model_tar(f"of-{name}:1", name.encode() * 1000)))
        listed = {"env__python__requirements.txt": LISTED + name.encode()}
        body = bento_tar(f"{name}:1", f"of-{name}:1", **listed)
        asyncio.run(push(here, Kind.BENTO, f"{name}:1", body, {"models": [f"of-{name}:1"]}))
        needs = here.bentos.needs(f"{name}:1")
        assert needs.listed is not None
        environment = here.folder / "environments" / key_of(needs.listed)
        environment.mkdir(parents=True)
        (environment / "complete").write_bytes(bytes(100))


def titles(found: list[Unused]) -> list[str]:
    return sorted(each.title for each in found if each.kind != "environment")


def left(here: Pushed) -> list[str]:
    rows = [row for kind in Kind for row in asyncio.run(here.repositories.rows.all(kind))]
    return sorted(row.tag for row in rows)


def test_what_is_young_is_not_garbage(here: Pushed, garbage: Garbage, clock: Clock) -> None:
    fill(here)
    clock.later = AGE - 60
    assert asyncio.run(garbage.unused(set())) == []
    assert asyncio.run(garbage.free(set())) == []
    assert left(here) == ["new:1", "of-new:1", "of-old:1", "old:1"]


def test_what_is_told_is_what_is_freed_with_its_bytes(here: Pushed, garbage: Garbage, clock: Clock) -> None:
    fill(here)
    clock.later = AGE + 60
    told = asyncio.run(garbage.unused({"new:1"}))
    assert titles(told) == ["bento old:1", "model of-old:1"]
    assert [each.size for each in told if each.kind == "environment"] == [100]
    before = sum(path.stat().st_size for path in everything(here))
    assert asyncio.run(garbage.free({"new:1"})) == told
    after = sum(path.stat().st_size for path in everything(here))
    assert before - after == sum(each.size for each in told)
    assert left(here) == ["new:1", "of-new:1"]
    assert len(asyncio.run(here.depot.objects())) == 2
    assert (here.bentos.needs("new:1").bento / "models" / "of-new" / "1" / "weights").exists()
    assert asyncio.run(garbage.unused({"new:1"})) == []
    with pytest.raises(NotFound):
        asyncio.run(here.repositories.repository(Kind.BENTO, "old"))
    with pytest.raises(NotFound):
        here.bentos.needs("old:1")


def everything(here: Pushed) -> list[Path]:
    return [
        path
        for path in here.folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith("torpor.db")
    ]


def test_only_what_was_named_is_freed(here: Pushed, garbage: Garbage, clock: Clock) -> None:
    fill(here)
    clock.later = AGE + 60
    freed = asyncio.run(garbage.free(set(), ["bento old:1", "bento unheard-of:1"]))
    assert titles(freed) == ["bento old:1"]
    assert left(here) == ["new:1", "of-new:1", "of-old:1"]


def test_a_model_of_two_bentos_stays_for_the_other(here: Pushed, garbage: Garbage, clock: Clock) -> None:
    asyncio.run(push(here, Kind.MODEL, "both:1", model_tar("both:1", b"x")))
    for name in ("one", "two"):
        body = bento_tar(f"{name}:1", "both:1")
        asyncio.run(push(here, Kind.BENTO, f"{name}:1", body, {"models": ["both:1"]}))
    clock.later = AGE + 60
    assert titles(asyncio.run(garbage.free({"two:1"}))) == ["bento one:1"]
    assert here.bentos.needs("two:1").bento.is_dir()


def test_what_a_bento_says_itself_counts_where_its_push_said_nothing(
    here: Pushed, garbage: Garbage, clock: Clock
) -> None:
    fill(here)
    asyncio.run(here.repositories.create(Kind.BENTO, "new", "2", Said()))
    asyncio.run(push(here, Kind.BENTO, "new:2", bento_tar("new:2", "of-old:1")))
    clock.later = AGE + 60
    assert "model of-old:1" not in titles(asyncio.run(garbage.unused({"new:2"})))


def test_what_a_deploy_asks_for_meanwhile_is_not_freed(here: Pushed, clock: Clock) -> None:
    fill(here)
    clock.later = AGE + 60
    here.repositories.copies.asked[Kind.BENTO, "old", "1"] = clock()
    here.repositories.copies.asked[Kind.MODEL, "of-old", "1"] = clock()
    garbage = Garbage(here.repositories, here.folder / "environments", clock)
    found = asyncio.run(garbage.unused(set()))
    assert titles(found) == ["bento new:1", "model of-new:1"]
    assert len([each for each in found if each.kind == "environment"]) == 1


def test_bytes_on_their_way_are_not_freed_and_bytes_of_nothing_are(
    here: Pushed, garbage: Garbage, clock: Clock
) -> None:
    fill(here)
    rows = asyncio.run(here.repositories.rows.all(Kind.MODEL, "of-old"))
    asyncio.run(here.repositories.rows.drop(rows))
    [digest] = [row.digest for row in rows]
    assert digest is not None
    clock.later = AGE + 60
    here.repositories.coming.append(digest)
    assert f"object {digest}" not in titles(asyncio.run(garbage.free({"new:1"})))
    assert digest in {each.digest for each in asyncio.run(here.depot.objects())}
    here.repositories.coming.clear()
    assert f"object {digest}" in titles(asyncio.run(garbage.free({"new:1"})))
    assert digest not in {each.digest for each in asyncio.run(here.depot.objects())}


def test_a_bento_that_was_there_before_there_were_repositories_is_known(
    here: Pushed, garbage: Garbage, clock: Clock
) -> None:
    """Its folder is all there is of it: it runs, and goes when nothing uses it."""
    folder = here.folder / "bentos" / "early" / "1"
    folder.mkdir(parents=True)
    (folder / "bento.yaml").write_text("service: service:It\nname: early\nversion: '1'\n")
    assert here.bentos.needs("early:1").bento == folder
    clock.later = AGE + 60
    assert titles(asyncio.run(garbage.unused({"early:1"}))) == []
    assert titles(asyncio.run(garbage.free(set()))) == ["bento early:1"]
    assert not folder.exists()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as started:
        yield started


def test_uploads_past_the_router_that_nobody_ended_are_freed(tmp_path: Path, server: Server, clock: Clock) -> None:
    async def begin(here: Pushed) -> None:
        await here.repositories.create_repository(Kind.MODEL, "words")
        await here.repositories.create(Kind.MODEL, "words", "1", Said())
        await here.direct.begin(Kind.MODEL, "words", "1")

    with pushed(tmp_path, depot=server.depot) as here:
        garbage = Garbage(here.repositories, here.folder / "environments", clock)
        asyncio.run(begin(here))
        clock.later = UPLOAD_AGE + 60
        assert [each.kind for each in asyncio.run(garbage.free(set()))] == ["model", "upload"]
        assert server.parts() == []


class Images:
    """An engine's, by their names; `key` of a bento is its folder's name and version."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.held: set[str] = set()
        self.down: TorporError | None = None
        self.before = 0.0

    async def key(self, bento: Path) -> str:
        if bento.parent.name == "broken":
            raise InvalidService("no")
        return f"key-of-{bento.parent.name}"

    async def key_of_given(self, given: str) -> str:
        return f"key-of-{given}"

    async def unused(self, in_use: set[str], before: float) -> list[Unused]:
        if self.down is not None:
            raise self.down
        self.before = before
        return [Unused("image", name, 7) for name in self.names if name not in in_use]

    async def remove(self, name: str) -> bool:
        if name not in self.held:
            self.names.remove(name)
        return name not in self.held


def images_of(found: list[Unused]) -> list[Unused]:
    return [each for each in found if each.kind == "image"]


def test_images_that_no_revision_uses_are_freed(here: Pushed, clock: Clock) -> None:
    fill(here)
    images = Images("key-of-old", "key-of-new", "key-of-nobody")
    garbage = Garbage(here.repositories, here.folder / "environments", clock, images)
    found = images_of(asyncio.run(garbage.unused({"old:1", "new:1"})))
    assert found == [Unused("image", "key-of-nobody", 7)]
    assert images.before == pytest.approx(clock() - AGE, abs=60)
    clock.later = AGE + 60  # what was pushed is young no more
    assert images_of(asyncio.run(garbage.free({"new:1"}))) == [
        Unused("image", "key-of-old", 7),
        Unused("image", "key-of-nobody", 7),
    ]
    assert images.names == ["key-of-new"]


def test_an_image_that_something_is_made_of_is_told_and_not_freed(here: Pushed, clock: Clock) -> None:
    images = Images("key-of-nobody")
    images.held.add("key-of-nobody")
    garbage = Garbage(here.repositories, here.folder / "environments", clock, images)
    assert titles(asyncio.run(garbage.unused(set()))) == ["image key-of-nobody"]
    assert asyncio.run(garbage.free(set())) == []


def test_the_images_of_bentos_without_a_copy_are_kept_by_their_tags(here: Pushed, clock: Clock) -> None:
    images = Images("absent:1", "gone:1")
    garbage = Garbage(here.repositories, here.folder / "environments", clock, images)
    assert titles(asyncio.run(garbage.unused({"absent:1"}))) == ["image gone:1"]


def test_a_bento_without_an_image_hinders_nothing(here: Pushed, clock: Clock) -> None:
    for name in ("broken", "new"):
        asyncio.run(push(here, Kind.BENTO, f"{name}:1", bento_tar(f"{name}:1")))
        here.bentos.path(f"{name}:1")
    garbage = Garbage(here.repositories, here.folder / "environments", clock, Images("key-of-broken", "key-of-new"))
    assert titles(asyncio.run(garbage.unused({"broken:1", "new:1"}))) == ["image key-of-broken"]


def test_what_completes_an_image_that_a_revision_was_given_is_kept(here: Pushed, clock: Clock) -> None:
    entry = Registered("it", 1, "new:1", {}, Settings(launcher="container", image="mine:1"), 0.0)
    asyncio.run(here.store.put(Change.of(entry)))
    images = Images("key-of-mine:1", "key-of-theirs:1")
    garbage = Garbage(here.repositories, here.folder / "environments", clock, images)
    assert titles(asyncio.run(garbage.unused({"new:1"}))) == ["image key-of-theirs:1"]


@pytest.mark.parametrize("error", [EngineUnreachable("down"), EngineFailed("confused")])
def test_without_an_engine_the_rest_is_freed_all_the_same(here: Pushed, clock: Clock, error: TorporError) -> None:
    fill(here)
    clock.later = AGE + 60
    images = Images("key-of-nobody")
    images.down = error
    garbage = Garbage(here.repositories, here.folder / "environments", clock, images)
    assert titles(asyncio.run(garbage.free({"new:1"}))) == ["bento old:1", "model of-old:1"]
