"""The compact tokenizer: the same ids as the library's, for every kind of text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from models.recipes import minilm_folder
from models.samples import BUILT_IN
from models.tokenizer import write_compact
from torpor.errors import ModelNotFound
from torpor.tokenizer import COMPACT, WHOLE, CompactEncoder, WholeEncoder, open_tokenizer

TRICKY = (
    "",
    " \t\n",
    "a" * 100,
    "a" * 101,
    "[CLS] a [MASK] in the text [SEP]",
    "\u200b\ufeff zero width \x00 and control \x07",
    "café café ÀÉÎ ß ŉ ǆ",
    "漢字と仮名 한국어 ไทย العربية עברית",
    "🤖👩‍👩‍👧 \U0001f1eb\U0001f1f7",
    "don't can't -- e-mail... 3.14 $5 50% #tag @name",
    "unaffable Antidisestablishmentarianism qqqqzzzzxxxx",
    "##ing ##s prefixless",
    "word " * 600,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM's real tokenizer, whole and compact."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / WHOLE).write_bytes((minilm_folder() / WHOLE).read_bytes())
    assert write_compact(folder, 256, BUILT_IN)
    return folder


@pytest.mark.parametrize("max_tokens", [8, 256])
def test_it_gives_the_librarys_ids(folder: Path, max_tokens: int) -> None:
    whole, compact = WholeEncoder(folder, max_tokens), CompactEncoder(folder, max_tokens)
    for text in (*BUILT_IN, *TRICKY):
        assert compact.encode(text) == whole.encode(text), text[:60]


@pytest.mark.parametrize("max_tokens", [9, 64])
def test_it_gives_the_librarys_pairs(folder: Path, max_tokens: int) -> None:
    whole, compact = WholeEncoder(folder, max_tokens), CompactEncoder(folder, max_tokens)
    texts = (*TRICKY, *BUILT_IN[:4], *BUILT_IN[-4:], "one two three", "one two three four")
    for one in texts:
        for other in texts:
            assert compact.encode_pair(one, other) == whole.encode_pair(one, other), (one[:40], other[:40])


def test_types_tell_the_two_texts_apart_and_an_older_artifact_gives_them_too(folder: Path, tmp_path: Path) -> None:
    ids, types = CompactEncoder(folder, 64).encode_pair("a cat", "dogs bark")
    assert types == [0, 0, 0, 0, 1, 1, 1]
    older = shutil.copytree(folder, tmp_path / "older")
    facts = json.loads((older / COMPACT).read_bytes())
    del facts["pair"]
    (older / COMPACT).write_text(json.dumps(facts))
    assert CompactEncoder(older, 64).encode_pair("a cat", "dogs bark") == (ids, types)


def test_the_compact_form_is_opened_where_it_is_there(folder: Path) -> None:
    assert isinstance(open_tokenizer(folder, 16), CompactEncoder)


def test_words_are_remembered_up_to_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torpor.tokenizer.REMEMBERED", 3)
    compact, whole = CompactEncoder(folder, 64), WholeEncoder(folder, 64)
    text = "one two three four five six seven one two"
    assert compact.encode(text) == whole.encode(text)
    assert len(compact.remembered) <= 3


@pytest.mark.parametrize("change", ["type", "normalized", "gap"])
def test_a_tokenizer_that_is_no_plain_wordpiece_stays_whole(change: str, tmp_path: Path) -> None:
    stored = json.loads((minilm_folder() / WHOLE).read_text())
    if change == "type":
        stored["model"] = {"type": "WordLevel", "vocab": stored["model"]["vocab"], "unk_token": "[UNK]"}
    elif change == "normalized":
        stored["added_tokens"][4]["normalized"] = True
    else:
        stored["model"]["vocab"]["beyond"] = 40_000
    (tmp_path / WHOLE).write_text(json.dumps(stored))
    assert write_compact(tmp_path, 32, BUILT_IN[:3]) is False
    assert not (tmp_path / COMPACT).exists()
    assert isinstance(open_tokenizer(tmp_path, 32), WholeEncoder)


def test_an_artifact_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"holds no tokenizer\.json"):
        open_tokenizer(tmp_path, 32)
