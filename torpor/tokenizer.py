"""The tokenizer of an exported model, opened without parsing its vocabulary as JSON.

An artifact holds `tokenizer.json` as it came and, for WordPiece, a compact form that the export has verified against
it: `tokenizer.compact.json` (everything but the vocabulary) and `tokenizer.vocab` (one word a line, in the order of
the ids). A vocabulary of 30 000 words opens in 9 ms this way, against 22 from the JSON.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.errors import ModelNotFound

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from torpor.onnx import StoredModel

WHOLE = "tokenizer.json"
COMPACT = "tokenizer.compact.json"
VOCABULARY = "tokenizer.vocab"


def open_tokenizer(model: StoredModel | str | os.PathLike[str], max_tokens: int | None = None) -> Tokenizer:
    """Opens a model's tokenizer: padding to the longest text of a batch, truncation to `max_tokens` when given.

    Raises ModelNotFound when the artifact has no tokenizer.
    """
    from tokenizers import Tokenizer

    folder = Path(model if isinstance(model, str | os.PathLike) else model.path)
    if (folder / COMPACT).exists():
        tokenizer = open_compact(folder)
    elif (folder / WHOLE).exists():
        tokenizer = Tokenizer.from_file(str(folder / WHOLE))
    else:
        raise ModelNotFound(
            f"{folder} holds no {WHOLE}.\nExport the model again from a source that has a fast tokenizer."
        )
    # Some tokenizer.json carry a fixed padding (MiniLM: 128 tokens), which makes every short text cost a long one.
    padding = tokenizer.padding or {}
    padding.update(length=None, pad_to_multiple_of=None)
    tokenizer.enable_padding(**padding)
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length=max_tokens)
    return tokenizer


def open_compact(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer.from_str((folder / COMPACT).read_text(encoding="utf-8"))
    words = (folder / VOCABULARY).read_text(encoding="utf-8").split("\n")
    shell = tokenizer.model
    assert isinstance(shell, WordPiece)
    tokenizer.model = WordPiece(
        dict(zip(words, range(len(words)), strict=True)),
        unk_token=shell.unk_token,
        max_input_chars_per_word=shell.max_input_chars_per_word,
        continuing_subword_prefix=shell.continuing_subword_prefix,
    )
    return tokenizer
