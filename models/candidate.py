"""A candidate: an exported graph that answers the samples as it will in serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.samples import Text
from torpor.onnx import GRAPH, open_session, read_card, session_options
from torpor.tokenizer import open_tokenizer

if TYPE_CHECKING:
    import onnxruntime

Floats = NDArray[np.float32]


class Candidate:
    """One graph of an artifact with its tokenizer; `answer` gives embeddings or logits for texts or pairs of them."""

    def __init__(self, folder: Path, session: onnxruntime.InferenceSession) -> None:
        self.card: dict[str, Any] = read_card(folder)
        self.session = session
        self.tokenizer = open_tokenizer(folder, self.card["max_tokens"])
        self.inputs = {each.name for each in session.get_inputs()}

    def answer(self, texts: Sequence[Text]) -> Floats:
        tokens = [self._encode(text) for text in texts]
        ids = np.full((len(texts), max(len(each) for each, _ in tokens)), self.tokenizer.pad_id, dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, (each, kinds) in enumerate(tokens):
            ids[row, : len(each)], mask[row, : len(each)], types[row, : len(each)] = each, 1, kinds
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        output = self.session.run(None, {name: array for name, array in feed.items() if name in self.inputs})[0]
        if self.card["task"] != "feature-extraction":
            return np.asarray(output, dtype=np.float32)
        return self._pool(np.asarray(output, dtype=np.float32), mask)

    def _encode(self, text: Text) -> tuple[list[int], list[int]]:
        if isinstance(text, str):
            ids = self.tokenizer.encode(text)
            return ids, [0] * len(ids)
        return self.tokenizer.encode_pair(*text)

    def _pool(self, hidden: Floats, mask: NDArray[np.int64]) -> Floats:
        if self.card["pooling"] == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[:, :, None].astype(np.float32)
            pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        if self.card["normalize"]:
            pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(pooled, dtype=np.float32)


def open_candidate(folder: Path, precision: str, *, portable: bool = False) -> Candidate:
    """The graph that serving opens here or, with `portable`, the one that other machines start from."""
    if not portable:
        return Candidate(folder, open_session(folder, precision))
    import onnxruntime

    graph = folder / "portable" / precision / GRAPH
    return Candidate(
        folder, onnxruntime.InferenceSession(str(graph), session_options(1), providers=["CPUExecutionProvider"])
    )
