"""The tokenizer of an artifact: written whole and, for WordPiece, in the compact form that opens faster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.source import Source
from torpor.errors import BadRequest
from torpor.tokenizer import COMPACT, VOCABULARY, WHOLE, open_compact

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def write_tokenizer(source: Source, texts: Sequence[str], folder: Path) -> str:
    """Writes the tokenizer into `folder`; returns the form that will be opened: compact or whole.

    Raises BadRequest when the source has no fast tokenizer.
    """
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    tokenizer: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if tokenizer is None:
        raise BadRequest(
            f"{source.folder} has no fast tokenizer ({type(fast).__name__} is written in Python).\n"
            "Save one with `AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)`."
        )
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=fast.pad_token_id or 0, pad_token=fast.pad_token or "[PAD]")
    tokenizer.save(str(folder / WHOLE), pretty=False)
    if not _write_compact(folder):
        return "whole"
    if same_ids(tokenizer, open_compact(folder), texts):
        return "compact"
    (folder / COMPACT).unlink()
    (folder / VOCABULARY).unlink()
    return "whole"


def same_ids(one: Tokenizer, other: Tokenizer, texts: Sequence[str]) -> bool:
    """True when both cut every text, alone and as part of a pair, into the same tokens at the same places."""
    for before, text in zip(["", *texts], texts, strict=False):
        for words in ((text,), (before, text)):
            a, b = one.encode(*words), other.encode(*words)
            if (a.ids, a.type_ids, a.offsets, a.attention_mask) != (b.ids, b.type_ids, b.offsets, b.attention_mask):
                return False
    return one.get_vocab() == other.get_vocab()


def _write_compact(folder: Path) -> bool:
    whole: dict[str, Any] = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
    model = whole["model"]
    if model.get("type") != "WordPiece":
        return False
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][word] for word in words] != list(range(len(words))) or any("\n" in word for word in words):
        return False
    # The added tokens must find their ids in the shell's vocabulary, or they would be numbered anew.
    added = {token["content"] for token in whole["added_tokens"]}
    model["vocab"] = {word: number for word, number in model["vocab"].items() if word in added | {model["unk_token"]}}
    (folder / COMPACT).write_text(json.dumps(whole, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
    (folder / VOCABULARY).write_text("\n".join(words), encoding="utf-8")
    return True
