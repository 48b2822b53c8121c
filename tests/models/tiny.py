"""Tiny models: random weights, real architectures and tokenizers, made in a second without a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.samples import BUILT_IN

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tiny(folder: Path, *, classes: int = 0, max_tokens: int = 24) -> Path:
    """Saves a random BERT encoder (or a classifier with `classes`) and its WordPiece tokenizer; returns the folder."""
    import torch
    import transformers

    library: Any = transformers  # its classes are untyped

    folder.mkdir(parents=True)
    words = sorted({word.strip(".,?!").lower() for text in BUILT_IN[:30] for word in text.split()} - {""})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
    vocabulary = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), "##ing", "##ed"]
    vocabulary += [word for word in words if word not in vocabulary]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = library.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=max_tokens)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = library.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.3,  # the default of 0.02 makes every text look the same
        num_labels=max(classes, 1),
    )
    model = library.BertForSequenceClassification(config) if classes else library.BertModel(config)
    model.save_pretrained(folder)
    return folder
