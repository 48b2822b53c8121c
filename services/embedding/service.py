"""Sentence embeddings from an exported model: copy this file, name your own model, deploy it.

The model is a torpor export (`torpor export SOURCE --task feature-extraction --name minilm`). Its card says how tokens
are pooled, whether vectors are normalised, and after how many tokens a text is cut.

Environment: TORPOR_PRECISION names the graph to open, int8 (the default) or fp32.
"""

from __future__ import annotations

import os

# Read by onnxruntime at its import: its telemetry would start a thread there, and send what it counts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime  # noqa: F401 - imported by torpor.onnx when needed; here, so that it is loaded before a replica starts
import tokenizers  # noqa: F401 - likewise
from bentoml.models import BentoModel
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from torpor.onnx import open_session, read_card
from torpor.tokenizer import open_tokenizer

MAX_TEXTS = 256  # a call: more are refused, so that one caller cannot hold a replica for minutes
MAX_CHARACTERS = 100_000  # a text: far more than is ever read of it, see `embed`
RUN_TOKENS = 256  # a run, padding included: on a CPU larger runs are no faster and take more memory


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty or white space only; leave it out of the list")
    return text


# Refused before the call joins a batch: an exception inside `embed` would fail its neighbours' calls too.
Text = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(not_blank)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


@bentoml.service(name="embedding", traffic={"timeout": 60})
class Embedding:
    """Turns texts into vectors whose dot product tells how alike the texts are."""

    model = BentoModel("minilm:latest")

    def __init__(self) -> None:
        model = self.model
        card = read_card(Path(model.path))
        self.pooling: str = card["pooling"]
        self.normalize: bool = card["normalize"]
        self.dimension: int = card["dimension"]
        self.tokenizer = open_tokenizer(model, max_tokens=card["max_tokens"])
        self.session = open_session(model, os.environ.get("TORPOR_PRECISION", "int8"))
        self.inputs = {each.name for each in self.session.get_inputs()}

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64)  # type: ignore[untyped-decorator]
    def embed(self, texts: Texts) -> NDArray[np.float32]:
        """Embeds 1 to 256 texts: an array of shape (texts, dimension), rows in the order of the texts.

        A text longer than the model's bound (MiniLM: 256 tokens, some 1000 characters) is cut there without an error.
        An empty list, a blank text, and one of more than 100 000 characters are refused with 400.
        With int8, texts that run together share their rounding: a vector can differ in the third digit.
        """
        tokens = [self.tokenizer.encode(text) for text in texts]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for rows in runs([len(ids) for ids in tokens]):
            vectors[rows] = self.run([tokens[row] for row in rows])
        return vectors

    def run(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        """One run of the graph, then pooling and normalisation as the card says."""
        ids = np.full((len(tokens), max(map(len, tokens))), self.tokenizer.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self.session.run(None, {name: feed[name] for name in self.inputs})[0]
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[:, :, None].astype(np.float32)
            pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        if self.normalize:
            pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled, dtype=np.float32)


def runs(lengths: list[int]) -> list[list[int]]:
    """Splits rows into runs of like length, of RUN_TOKENS padded tokens at most or of one row."""
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[row] <= RUN_TOKENS:
            found[-1].append(row)
        else:
            found.append([row])
    return found
