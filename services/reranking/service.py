"""Documents in the order of their relevance, from an exported cross-encoder: copy this file, name your own model.

The model is a torpor export (`torpor export SOURCE --task text-ranking --name reranker`) of a cross-encoder: it reads
the query and a document together and gives one score. Its card says how scores are made of the graph's output, and
after how many tokens a query with a document is cut.

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

MAX_DOCUMENTS = 256  # a call: more are refused, so that one caller cannot hold a replica for minutes
MAX_CHARACTERS = 100_000  # a text: far more than is ever read of it, see `rank`
RUN_TOKENS = 256  # a run, padding included: on a CPU larger runs are no faster and take more memory


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty or white space only; leave it out")
    return text


Text = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(not_blank)]
Documents = Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class Ranked(BaseModel):
    """A document's place in the list that was sent, from 0, and its score: the higher, the more relevant."""

    index: int
    score: float


@bentoml.service(name="reranking", traffic={"timeout": 60})
class Reranking:
    """Orders documents by how well they answer a query."""

    model = BentoModel("reranker:latest")

    def __init__(self) -> None:
        model = self.model
        card = read_card(Path(model.path))
        self.activation: str = card["activation"]
        self.tokenizer = open_tokenizer(model, max_tokens=card["max_tokens"])
        self.session = open_session(model, os.environ.get("TORPOR_PRECISION", "int8"))
        self.inputs = {each.name for each in self.session.get_inputs()}

    # Not batchable: a batchable method takes one argument, and a call's documents are a batch already.
    @bentoml.api  # type: ignore[untyped-decorator]
    def rank(self, query: Text, documents: Documents, top_k: Annotated[int, Field(ge=1)] | None = None) -> list[Ranked]:
        """The `top_k` most relevant of 1 to 256 documents, or all of them, the most relevant first.

        Equal ones keep their order. Scores lie between 0 and 1 where the model's card says sigmoid, else anywhere.
        Where query and document together are longer than the model's bound (the card's max_tokens), the longer of the
        two is cut without an error until they fit.
        An empty list, a blank text, and one of more than 100 000 characters are refused with 400.
        """
        pairs = [self.tokenizer.encode_pair(query, document) for document in documents]
        scores = np.empty(len(documents), dtype=np.float32)
        for rows in runs([len(ids) for ids, _ in pairs]):
            scores[rows] = self.run([pairs[row] for row in rows])
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [Ranked(index=int(place), score=float(scores[place])) for place in order]

    def run(self, pairs: list[tuple[list[int], list[int]]]) -> NDArray[np.float32]:
        """One run of the graph; a score for each pair of texts."""
        ids = np.full((len(pairs), max(len(each) for each, _ in pairs)), self.tokenizer.pad_id, dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, (each, kinds) in enumerate(pairs):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
            types[row, : len(each)] = kinds
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        logits = self.session.run(None, {name: feed[name] for name in self.inputs})[0][:, 0]
        if self.activation == "sigmoid":
            logits = 1 / (1 + np.exp(-logits))
        return np.asarray(logits, dtype=np.float32)


def runs(lengths: list[int]) -> list[list[int]]:
    """Splits rows into runs of like length, of RUN_TOKENS padded tokens at most or of one row."""
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[row] <= RUN_TOKENS:
            found[-1].append(row)
        else:
            found.append([row])
    return found
