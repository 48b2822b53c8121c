"""Classes of texts from an exported model: copy this file, name your own model, deploy it.

The model is a torpor export (`torpor export SOURCE --task text-classification --name classifier`). Its card names the
classes, says how scores are made of the graph's output, and after how many tokens a text is cut.

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
from pydantic import AfterValidator, BaseModel, Field

from torpor.onnx import open_session, read_card
from torpor.tokenizer import open_tokenizer

MAX_TEXTS = 256  # a call: more are refused, so that one caller cannot hold a replica for minutes
MAX_CHARACTERS = 100_000  # a text: far more than is ever read of it, see `classify`
RUN_TOKENS = 256  # a run, padding included: on a CPU larger runs are no faster and take more memory


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty or white space only; leave it out of the list")
    return text


# Refused before the call joins a batch: an exception inside `classify` would fail its neighbours' calls too.
Text = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(not_blank)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


class Label(BaseModel):
    """A class and how sure the model is of it, 0 to 1. With a softmax the scores of all classes sum to 1."""

    label: str
    score: float


@bentoml.service(name="classification", traffic={"timeout": 60})
class Classification:
    """Tells which of a model's classes each text is of."""

    model = BentoModel("classifier:latest")

    def __init__(self) -> None:
        model = self.model
        card = read_card(Path(model.path))
        self.labels: list[str] = card["labels"]
        self.activation: str = card["activation"]
        self.tokenizer = open_tokenizer(model, max_tokens=card["max_tokens"])
        self.session = open_session(model, os.environ.get("TORPOR_PRECISION", "int8"))
        self.inputs = {each.name for each in self.session.get_inputs()}

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64)  # type: ignore[untyped-decorator]
    def classify(self, texts: Texts) -> list[list[Label]]:
        """All classes of each of 1 to 256 texts, the surest first; rows in the order of the texts.

        A text longer than the model's bound (the card's max_tokens) is cut there without an error.
        An empty list, a blank text, and one of more than 100 000 characters are refused with 400.
        Calls that come at the same time share a run. With int8 they share their rounding too.
        """
        return self.best(texts, len(self.labels))

    # Not in `classify`: a batchable method takes one argument.
    @bentoml.api  # type: ignore[untyped-decorator]
    def top(self, texts: Texts, top_k: Annotated[int, Field(ge=1)] = 1) -> list[list[Label]]:
        """The `top_k` surest classes of each text, all of them where there are fewer. Bounds are those of `classify`.

        Its calls run one by one.
        """
        return self.best(texts, top_k)

    def best(self, texts: list[str], top_k: int) -> list[list[Label]]:
        tokens = [self.tokenizer.encode(text) for text in texts]
        scores = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for rows in runs([len(ids) for ids in tokens]):
            scores[rows] = self.run([tokens[row] for row in rows])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return [
            [Label(label=self.labels[place], score=float(row[place])) for place in places]
            for row, places in zip(scores, order, strict=True)
        ]

    def run(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        """One run of the graph; scores, one a class."""
        ids = np.full((len(tokens), max(map(len, tokens))), self.tokenizer.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = self.session.run(None, {name: feed[name] for name in self.inputs})[0]
        if self.activation == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


def runs(lengths: list[int]) -> list[list[int]]:
    """Splits rows into runs of like length, of RUN_TOKENS padded tokens at most or of one row."""
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[row] <= RUN_TOKENS:
            found[-1].append(row)
        else:
            found.append([row])
    return found
