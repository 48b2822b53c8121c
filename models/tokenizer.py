"""The tokenizer of an artifact: written whole and, for WordPiece, in the compact form that opens faster."""

from __future__ import annotations

import array
import itertools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.source import Source
from torpor.errors import BadRequest
from torpor.tokenizer import COMPACT, INDEX, WHOLE, WORDS, CompactEncoder, WholeEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPARSE = 4  # slots a word in the hash table: most look-ups end at the first slot


def write_tokenizer(source: Source, texts: Sequence[str], folder: Path) -> str:
    """Writes the tokenizer into `folder`; returns the form that will be opened: compact or whole.

    Raises BadRequest when the source has no fast tokenizer.
    """
    from transformers import AutoTokenizer

    fast: Any = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    tokenizer: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if tokenizer is None:
        raise BadRequest(
            f"{source.folder} has no fast tokenizer ({type(fast).__name__} is written in Python).\n"
            "Save one with `AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)`."
        )
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=fast.pad_token_id or 0, pad_token=fast.pad_token or "[PAD]")
    tokenizer.save(str(folder / WHOLE), pretty=False)
    return "compact" if write_compact(folder, source.max_tokens, texts) else "whole"


def write_compact(folder: Path, max_tokens: int, texts: Sequence[str]) -> bool:
    """Writes the compact form beside tokenizer.json. False, and nothing written, where it cannot be or differs."""
    whole = WholeEncoder(folder, max_tokens)
    facts = _facts(json.loads((folder / WHOLE).read_bytes()), whole)
    if facts is None:
        return False
    words = _in_order(whole.tokenizer.get_vocab(with_added_tokens=False))
    (folder / WORDS).write_bytes(b"".join(words))
    (folder / INDEX).write_bytes(_index(words))
    (folder / COMPACT).write_text(json.dumps(facts), encoding="utf-8")
    compact, texts = CompactEncoder(folder, max_tokens), list(texts)
    if same_ids(whole, compact, [*texts, *_words_as_texts(words)]) and same_pairs(whole, compact, texts):
        return True
    for name in (WORDS, INDEX, COMPACT):
        (folder / name).unlink()
    return False


def same_ids(whole: WholeEncoder, compact: CompactEncoder, texts: Sequence[str]) -> bool:
    """True when both give the same ids for every text."""
    return all(whole.encode(text) == compact.encode(text) for text in texts)


def same_pairs(whole: WholeEncoder, compact: CompactEncoder, texts: Sequence[str]) -> bool:
    """True when both give the same ids and types for each text with the next one, in both orders."""
    forth = list(itertools.pairwise(texts))
    back = [(other, one) for one, other in forth]
    return all(whole.encode_pair(*pair) == compact.encode_pair(*pair) for pair in (*forth, *back))


def _facts(stored: dict[str, Any], whole: WholeEncoder) -> dict[str, Any] | None:
    """What the compact form keeps of a tokenizer.json; None where it is no plain WordPiece."""
    model, added = stored["model"], stored["added_tokens"]
    plain = model.get("type") == "WordPiece" and stored["normalizer"] and stored["pre_tokenizer"]
    if not plain or any(token["normalized"] for token in added):
        return None
    vocabulary: dict[str, int] = model["vocab"]
    # Ids without gaps, and every added token among them: otherwise its id is not a place in the list of words.
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return None
    if any(vocabulary.get(token["content"]) != token["id"] for token in added):
        return None
    unknown = vocabulary[model["unk_token"]]
    around: list[int] = whole.tokenizer.encode(model["unk_token"]).ids
    at = around.index(unknown)
    shell = stored | {"model": model | {"vocab": {model["unk_token"]: 0}}, "added_tokens": [], "post_processor": None}
    return {
        "head": around[:at],
        "tail": around[at + 1 :],
        "pair": _around_two(whole, model["unk_token"], unknown),
        "unknown": unknown,
        "pad_id": whole.pad_id,
        "special": [token["content"] for token in added],
        "prefix": model["continuing_subword_prefix"],
        "longest_word": model["max_input_chars_per_word"],
        "longest_piece": max(len(word) for word in vocabulary),
        "shell": shell | {"truncation": None, "padding": None},
    }


def _around_two(whole: WholeEncoder, word: str, number: int) -> dict[str, Any]:
    """What the post-processor puts before, between and after two texts, and the type of each text's tokens."""
    ids, types = whole.encode_pair(word, word)
    one = ids.index(number)
    other = ids.index(number, one + 1)
    parts = (slice(0, one), slice(one + 1, other), slice(other + 1, None))
    return {"around": [[ids[part], types[part]] for part in parts], "texts": [types[one], types[other]]}


def _in_order(vocabulary: dict[str, int]) -> list[bytes]:
    return [word.encode() for word in sorted(vocabulary, key=vocabulary.__getitem__)]


def _index(words: Sequence[bytes]) -> bytes:
    """The hash table that `torpor.tokenizer.Vocabulary` reads: see there for how it is searched."""
    slots = 1 << (len(words) * SPARSE - 1).bit_length()
    table = array.array("I", bytes(4 * slots))
    offsets = array.array("I", [0])
    for number, word in enumerate(words):
        slot = zlib.crc32(word) & (slots - 1)
        while table[slot]:
            slot = (slot + 1) & (slots - 1)
        table[slot] = number + 1
        offsets.append(offsets[-1] + len(word))
    return array.array("I", [slots]).tobytes() + table.tobytes() + offsets.tobytes()


def _words_as_texts(words: Sequence[bytes], per_text: int = 100) -> list[str]:
    """All words of the vocabulary as texts, so that every entry of the table is looked up once."""
    plain = [word.decode() for word in words]
    return [" ".join(plain[at : at + per_text]) for at in range(0, len(plain), per_text)]
