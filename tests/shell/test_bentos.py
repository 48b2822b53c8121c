"""Uploaded bentos: what is distrusted, what is refused, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import yaml

from router.core.artifacts import Kind
from router.depot.archive import Bounds
from tests.shell.pushing import Pushed, chunks, pushed
from torpor.client.bento import packed
from torpor.errors import BadRequest, BodyTooLarge, DiskFull, InvalidService, ModelNotFound, NotFound, TorporError

MANIFEST = {"service": "service:Hello", "name": "hello", "version": "1", "models": [], "envs": []}
BENTO = {"bento.yaml": yaml.safe_dump(MANIFEST).encode(), "src/service.py": b"import bentoml\n" * 100}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bentos"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Pushed]:
    with pushed(tmp_path, Bounds(upload=1 << 20, unpacked=1 << 19, files=20)) as made:
        yield made


def archive(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, io.BytesIO], files: dict[str, bytes] = BENTO) -> bytes:
    """A tar of the files, then of the members as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            tar.addfile(*sized(name, content))
        for member in members:
            tar.addfile(*(member if isinstance(member, tuple) else (member,)))
    return out.getvalue()


def sized(name: str, content: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, io.BytesIO(content)


def odd(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def put(here: Pushed, body: bytes, name: str = "hello", version: str = "1") -> str:
    return asyncio.run(here.repositories.deposit(name, version, chunks(body))).tag


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose disk takes 64 KiB; who may not mount one has a disk that is full when it is asked to write."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        monkeypatch.setattr(os, "fsync", out_of_space)
    yield place
    if not mounted.returncode:
        subprocess.run(["umount", str(place)], check=True)


def out_of_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def there(folder: Path) -> list[str]:
    """Every file of the bentos and of uploads under way."""
    files = [path for place in (folder, folder.parent / "incoming") for path in place.rglob("*") if path.is_file()]
    return sorted(os.path.relpath(path, folder) for path in files if path.name != ".digest")


def files(folder: Path) -> list[Path]:
    """All but the database's, which are written all the time."""
    return sorted(path for path in folder.rglob("*") if not path.name.startswith("torpor.db"))


def test_an_upload_is_there_as_it_was_packed(here: Pushed, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in {**BENTO, "src/deep/er/data.bin": bytes(range(256)) * 300}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "src" / "linked.py").symlink_to("service.py")
    assert put(here, b"".join(packed(source))) == "hello:1"
    kept = {name: (folder / "hello" / "1" / name).read_bytes() for name in ("src/deep/er/data.bin", "src/linked.py")}
    assert kept == {"src/deep/er/data.bin": bytes(range(256)) * 300, "src/linked.py": BENTO["src/service.py"]}
    assert list((folder / ".parts").iterdir()) == []


def test_the_tar_of_a_shell_user_is_taken_too(here: Pushed, folder: Path) -> None:
    body = archive(files={f"./{name}": content for name, content in BENTO.items()})
    assert put(here, body) == "hello:1"
    assert there(folder) == ["hello/1/bento.yaml", "hello/1/src/service.py"]


def test_the_same_upload_twice_is_answered_alike_and_changes_nothing(here: Pushed, folder: Path) -> None:
    put(here, archive())
    inode = (folder / "hello" / "1" / "bento.yaml").stat().st_ino
    other = archive(files={**BENTO, "src/service.py": b"raise SystemExit\n"})
    assert put(here, other) == "hello:1"
    assert (folder / "hello" / "1" / "bento.yaml").stat().st_ino == inode
    assert (folder / "hello" / "1" / "src" / "service.py").read_bytes() == BENTO["src/service.py"]


def test_the_same_upload_twice_at_once_is_one_bento(here: Pushed, folder: Path) -> None:
    async def both() -> list[str]:
        puts = (here.repositories.deposit("hello", "1", chunks(archive())) for _ in range(4))
        return [each.tag for each in await asyncio.gather(*puts)]

    assert asyncio.run(both()) == ["hello:1"] * 4
    assert there(folder) == ["hello/1/bento.yaml", "hello/1/src/service.py"]


REFUSED: dict[str, tuple[bytes, str]] = {
    "dots": (archive(sized("src/../../../escaped", b"x")), "leads out of it"),
    "dots of a folder": (archive(odd("../escaped", tarfile.DIRTYPE)), "leads out of it"),
    "absolute": (archive(sized("/tmp/torpor-escaped", b"x")), "leads out of it"),
    "symbolic link": (archive(odd("src/link", tarfile.SYMTYPE, "/etc/passwd")), "neither file nor folder"),
    "link inside": (archive(odd("src/link", tarfile.SYMTYPE, "service.py")), "neither file nor folder"),
    "hard link": (archive(odd("src/link", tarfile.LNKTYPE, "bento.yaml")), "neither file nor folder"),
    "device": (archive(odd("src/null", tarfile.CHRTYPE)), "neither file nor folder"),
    "block device": (archive(odd("src/sda", tarfile.BLKTYPE)), "neither file nor folder"),
    "pipe": (archive(odd("src/pipe", tarfile.FIFOTYPE)), "neither file nor folder"),
    "the same name twice": (archive(sized("bento.yaml", b"x")), "name every file once"),
    "a folder where a file is": (archive(odd("bento.yaml", tarfile.DIRTYPE)), "name every file once"),
    "a file below a file": (archive(sized("bento.yaml/x", b"x")), "name every file once"),
    "a name too long": (archive(sized("x" * 300, b"x")), "name every file once"),
    "no bento.yaml": (archive(files={"src/service.py": b""}), "no bento.yaml at its top"),
    "bento.yaml too deep": (archive(files={"hello/bento.yaml": b"a: 1"}), "no bento.yaml at its top"),
    "nothing": (b"", "not a bento's tar"),
    "no tar": (b"PK\x03\x04" + bytes(2000), "not a bento's tar"),
    "compressed": (b"\x1f\x8b\x08" + bytes(2000), "not a bento's tar"),
    "cut in a file": (archive()[:2000], "not a bento's tar"),
    "cut in a header": (archive()[:1124], "not a bento's tar"),
    "cut between two files": (archive()[:1024], "it is cut off"),
    "cut before its end": (archive()[:-10240] + b"", "not a bento's tar"),
    "an impossible size of a name": (archive(odd("x", tarfile.GNUTYPE_LONGNAME, size=1 << 80)), "not a bento's tar"),
    "a negative size": (archive(odd("x", size=-512)), "neither file nor folder"),
    "another name": (
        archive(files={**BENTO, "bento.yaml": yaml.safe_dump({**MANIFEST, "name": "other"}).encode()}),
        "holds the bento other:1",
    ),
    "another version": (
        archive(files={**BENTO, "bento.yaml": yaml.safe_dump({**MANIFEST, "version": "2"}).encode()}),
        "holds the bento hello:2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tar_that_is_not_to_be_trusted_is_refused_and_leaves_nothing(
    here: Pushed, folder: Path, tmp_path: Path, case: str
) -> None:
    body, says = REFUSED[case]
    outside = files(tmp_path)
    with pytest.raises(BadRequest, match=says) as raised:
        put(here, body)
    assert len(raised.value.message.split("\n")) == 2
    assert there(folder) == []
    assert files(tmp_path) == outside
    assert asyncio.run(here.depot.objects()) == []
    assert asyncio.run(here.repositories.rows.all(Kind.BENTO)) == []
    assert not Path("/tmp/torpor-escaped").exists()
    with pytest.raises(NotFound):
        here.bentos.path("hello:1")
    assert put(here, archive()) == "hello:1", "a refused one does not block the right one"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (archive(*(sized(f"src/{number}.py", b"") for number in range(30))), "more than 20 files"),
        (archive(*(odd(f"d{number}", tarfile.DIRTYPE) for number in range(30))), "more than 20 files"),
        (archive(sized("src/big", bytes(600_000))), "524288 bytes"),
        (archive(sized("src/big", bytes(3 << 20))), "the upload is larger than 1048576 bytes"),
        (archive(odd("src/claimed", size=5 << 40)), "524288 bytes"),
    ],
    ids=["files", "folders", "unpacked", "upload", "a size that is only claimed"],
)
def test_an_upload_beyond_the_bounds_is_refused_and_leaves_nothing(
    here: Pushed, folder: Path, body: bytes, says: str
) -> None:
    with pytest.raises(BodyTooLarge, match=says):
        put(here, body)
    assert there(folder) == []


def test_an_endless_upload_is_not_read_beyond_the_bound(here: Pushed, folder: Path) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 65536
            yield bytes(65536)

    with pytest.raises(BodyTooLarge):
        asyncio.run(here.repositories.deposit("hello", "1", endless()))
    assert given == (1 << 20) + 65536
    assert there(folder) == []


def test_an_upload_whose_sender_goes_leaves_nothing(here: Pushed, folder: Path) -> None:
    class Gone(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield archive()[:1500]
        assert [Path(name).parts[:2] for name in there(folder)] == [("..", "incoming")]
        raise Gone

    with pytest.raises(Gone):
        asyncio.run(here.repositories.deposit("hello", "1", broken()))
    assert there(folder) == []


def test_what_a_killed_router_left_of_an_upload_is_cleared_at_the_next_start(here: Pushed, folder: Path) -> None:
    put(here, archive())
    (folder / ".parts" / "half").mkdir()
    (folder / ".parts" / "half" / "tar").write_bytes(b"x")
    (folder.parent / "incoming" / "half").write_bytes(b"x")
    here.repositories.open()
    assert there(folder) == ["hello/1/bento.yaml", "hello/1/src/service.py"]


@pytest.mark.parametrize("tag", ["", "hello", "hello:", ":1", "../x:1", "hello:..", "a/b:1", "he llo:1", "hello:1/2"])
def test_what_is_no_tag_is_refused(here: Pushed, tag: str) -> None:
    with pytest.raises(BadRequest, match="is not a bento's tag\nuse name:version"):
        here.bentos.path(tag)
    name, _, version = tag.partition(":")
    with pytest.raises(BadRequest):
        put(here, archive(), name, version)


def test_an_unknown_bento_is_not_here(here: Pushed) -> None:
    with pytest.raises(NotFound, match="bento nobody:1 is not here"):
        here.bentos.needs("nobody:1")


@pytest.mark.parametrize("seed", range(2))
def test_no_damage_does_anything_else_than_to_be_refused(here: Pushed, folder: Path, seed: int) -> None:
    """A few hundred archives with random bytes changed, cut out or doubled."""
    rng = random.Random(seed)
    whole = archive(odd("src/link", tarfile.SYMTYPE, "x" * 120), sized("long/" + "n" * 150, b"abc"))
    taken = refused = 0
    for _ in range(60):
        body = bytearray(whole if rng.random() < 0.5 else archive())
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(4096)
            change = rng.randrange(3)
            if change == 0:
                body[at] = rng.randrange(256)
            elif change == 1:
                del body[at : at + rng.randrange(600)]
            else:
                body[at:at] = body[at : at + 512]
        try:
            put(here, bytes(body), "hello", "1")
            taken += 1
            asyncio.run(here.repositories.rows.drop(asyncio.run(here.repositories.rows.all(Kind.BENTO))))
            for name in there(folder):
                assert name.startswith("hello/1/")
                (folder / name).unlink()
            (folder / "hello" / "1").rename(folder / ".parts" / f"taken-{taken}")
        except TorporError:
            refused += 1
            assert not any(name.startswith("hello") for name in there(folder))
    assert refused > 5
    assert taken + refused == 60


# What a bento asks of whoever runs it.


def with_manifest(here: Pushed, change: Callable[[dict[str, object]], None], **files: str) -> str:
    manifest: dict[str, object] = dict(MANIFEST)
    change(manifest)
    extra = {name.replace("__", "/"): text.encode() for name, text in files.items()}
    return put(here, archive(files={**BENTO, "bento.yaml": yaml.safe_dump(manifest).encode(), **extra}))


def test_the_needs_of_a_bento_are_read_from_what_bentoml_wrote(here: Pushed, folder: Path) -> None:
    listed = (
        "--index-url https://example.invalid/simple\n\nnumpy>=2.0  # arrays\n# a comment\n"
        "attrs==25.1 \\\n    --hash=sha256:00\n"
    )
    envs = [{"name": "TOKEN", "value": ""}, {"name": "MODE", "value": "fast"}, {"name": "KEY"}]
    tag = put(
        here,
        archive(
            files={
                **BENTO,
                "bento.yaml": yaml.safe_dump({**MANIFEST, "envs": envs}).encode(),
                "env/python/requirements.txt": listed.encode(),
            }
        ),
    )
    needs = here.bentos.needs(tag)
    home = folder / "hello" / "1"
    assert (needs.folder, needs.bento, needs.target) == (home / "src", home, "service:Hello")
    assert needs.requirements == ("numpy>=2.0", "attrs==25.1")
    assert needs.listed == home / "env" / "python" / "requirements.txt"
    assert needs.required_env == ("TOKEN", "KEY")


def test_locked_packages_go_before_those_that_were_asked_for(here: Pushed) -> None:
    python = "env/python/requirements"
    files = {**BENTO, f"{python}.txt": b"attrs\n", f"{python}.lock.txt": b"attrs==25.1\n"}
    assert here.bentos.needs(put(here, archive(files=files))).requirements == ("attrs==25.1",)


def test_a_model_that_is_not_in_the_store_is_named_with_the_remedy(
    here: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    tag = with_manifest(here, lambda manifest: manifest.update(models=[{"tag": "nowhere-known:1"}]))
    with pytest.raises(ModelNotFound, match=r"the model nowhere-known:1.*\npush it .* --name nowhere-known"):
        here.bentos.needs(tag)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"service: [unclosed", "no readable bento.yaml"),
        (b"\xff\xfe\x00", "no readable bento.yaml"),
        (b"just text", "names no service"),
        (b"name: hello\nversion: '1'", "names no service"),
        (b"service: 3\nname: hello\nversion: '1'", "names no service"),
        (b"service: !!python/object/apply:os.system [true]", "no readable bento.yaml"),
    ],
)
def test_a_manifest_that_says_nothing_is_refused_with_the_upload(
    here: Pushed, folder: Path, broken: bytes, says: str
) -> None:
    with pytest.raises(InvalidService, match=says):
        put(here, archive(files={**BENTO, "bento.yaml": broken}))
    assert there(folder) == []


@pytest.mark.parametrize("part", [{"models": [3]}, {"models": 7}, {"envs": ["A"]}, {"envs": [{"value": ""}]}])
def test_a_manifest_with_a_broken_part_is_no_defect_of_the_router(here: Pushed, part: dict[str, object]) -> None:
    with pytest.raises(InvalidService, match=r"broken bento\.yaml"):
        here.bentos.needs(with_manifest(here, lambda manifest: manifest.update(part)))


@pytest.mark.parametrize("size", [40_000, 400_000], ids=["when it is unpacked", "when it is received"])
def test_a_full_disk_is_said_to_be_full_and_nothing_half_written_stays(
    tmp_path: Path, small_disk: Path, size: int
) -> None:
    with (
        pushed(small_disk, database=tmp_path) as here,
        pytest.raises(DiskFull, match="takes nothing more: No space left on device") as raised,
    ):
        put(here, archive(files=BENTO | {"src/weights": random.Random(1).randbytes(size)}))
    assert (raised.value.status, raised.value.code) == (507, "disk_full")
    assert there(small_disk) == []
