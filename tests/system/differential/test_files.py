"""Images and files: multipart forms, a body that is one file, answers that are one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.system.differential.pair import Pair


def picture(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(out, kind)
    return out.getvalue()


PNG = picture()
PART = ("a.png", PNG, "image/png")


@pytest.mark.parametrize(
    ("method", "options", "value"),
    [
        ("size", {"files": {"image": PART}}, [3, 2]),
        ("size", {"files": {"image": PART}, "data": {"factor": "3"}}, [9, 6]),
        ("size", {"files": {"image": ("a.jpg", picture("JPEG"), "image/jpeg")}}, [3, 2]),
        ("length", {"files": {"file": ("a.bin", b"12345")}}, {"length": 5, "suffix": ".bin"}),
        ("length", {"files": {"file": ("a.txt", b"")}}, {"length": 0, "suffix": ".txt"}),
        ("length", {"files": {"file": ("../../a/b.txt", b"1")}}, {"length": 1, "suffix": ".txt"}),
        ("length", {"files": {"file": ("big.bin", b"x" * 3_000_000)}}, {"length": 3_000_000, "suffix": ".bin"}),
        ("lengths", {"files": [("files", ("a", b"1")), ("files", ("b", b"22"))]}, [1, 2]),
        ("lengths", {"files": [("files", ("a", b"1"))]}, [1]),
        ("audio", {"files": {"sound": ("a.wav", b"RIFF", "audio/wav")}}, 4),
    ],
)
def test_files_of_a_form_are_arguments(pair: Pair, method: str, options: dict[str, Any], value: Any) -> None:
    assert json.loads(pair.both(200, "files", "POST", f"/{method}", **options).body) == value


@pytest.mark.parametrize(
    ("status", "method", "options"),
    [
        (400, "size", {"files": {"image": PART}, "data": {"factor": "x"}}),
        (400, "size", {"data": {"factor": "1"}}),
        (400, "size", {"json": {}}),
        (400, "size", {"content": PNG, "headers": {"content-type": "image/png"}}),
        (500, "size", {"files": {"image": ("a.png", b"no image", "image/png")}}),
        (500, "size", {"json": {"image": "x"}}),
        (400, "length", {}),
        (400, "length", {"json": {"file": "/etc/passwd"}}),
        (400, "length", {"content": b"1", "headers": {"content-type": "application/octet-stream"}}),
        (500, "length", {"data": {"file": "/etc/passwd"}}),
        (500, "length", {"files": {"file": (None, "text")}}),
        (400, "lengths", {"data": {"other": "1"}}),
        (400, "audio", {"files": {"sound": ("a.mp3", b"ID3", "audio/mpeg")}}),
    ],
)
def test_what_is_no_such_file_is_refused_alike(pair: Pair, status: int, method: str, options: dict[str, Any]) -> None:
    pair.both(status, "files", "POST", f"/{method}", **options)


@pytest.mark.parametrize("media_type", ["image/png", "application/json", "text/plain", ""])
def test_a_body_that_is_one_image_is_the_root_argument(pair: Pair, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    assert pair.both(200, "files", "POST", "/root_image", content=PNG, headers=headers).body == b"PNG (3, 2)"


def test_a_body_that_is_no_image_is_500(pair: Pair) -> None:
    pair.both(500, "files", "POST", "/root_image", content=b"x", headers={"content-type": "image/png"})
    pair.both(500, "files", "POST", "/root_image", files={"image": PART})


def test_files_are_answers(pair: Pair) -> None:
    flipped = pair.both(200, "files", "POST", "/flip", files={"image": PART})
    assert flipped.header("content-type") == "image/png"
    assert Image.open(io.BytesIO(flipped.body)).size == (3, 2)
    report = pair.call(200, "files", "report")
    assert report.body == b"a,b\n1,2\n"
    assert report.header("content-disposition") == 'attachment; filename="report.csv"'
    inline = pair.call(200, "files", "picture")
    assert inline.header("content-disposition") == 'inline; filename="picture.png"'


def test_a_part_of_a_file_is_answered_alike(pair: Pair) -> None:
    pair.both(200, "files", "POST", "/report", json={}, headers={"range": "bytes=0-2"})
