"""The reference: what PyTorch answers for the samples. Its own tokenizer, its own pooling: nothing shared with ONNX."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.samples import Text, singles
from models.source import Source
from torpor.errors import BadRequest

Floats = NDArray[np.float32]
PROBE = "How do I change the e-mail address of my account?"  # the text that latencies are taken on
ROUNDS = 15
SHOWN = 4  # weights that are named


@dataclass(frozen=True)
class Reference:
    """Answers of the original model: embeddings (n, dimension) or logits (n, classes), and its latency in seconds."""

    answers: Floats
    latency_p50: float


def check_weights(source: Source, task: str, missing: Iterable[str]) -> None:
    """Refuses what transformers would fill with random numbers. Raises BadRequest."""
    # A sentence's embedding is pooled from the tokens': the pooler of a BERT is not part of it.
    made_up = sorted(name for name in missing if task != "feature-extraction" or "pooler" not in name)
    if made_up:
        shown = ", ".join(made_up[:SHOWN]) + (f" and {len(made_up) - SHOWN} more" if len(made_up) > SHOWN else "")
        raise BadRequest(
            f"{source.folder} has no weights for {shown}: its answers would be random.\n"
            f"Use a source that was trained for {task}, or another --task."
        )


def ask_torch(source: Source, task: str, texts: Sequence[Text]) -> Reference:
    """Runs every text, or pair of texts, alone through the original model, on one thread. Blocks for seconds.

    Raises BadRequest for a source that lacks weights of the task's model.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    kind = AutoModel if task == "feature-extraction" else AutoModelForSequenceClassification
    model, found = kind.from_pretrained(
        source.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    check_weights(source, task, found["missing_keys"])
    model.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)

    def answer(text: Text) -> Floats:
        columns = ([each] for each in singles(text))
        batch = tokenizer(*columns, truncation=True, max_length=source.max_tokens, padding=True, return_tensors="pt")
        output = model(**batch)
        if task != "feature-extraction":
            return np.asarray(output.logits[0], dtype=np.float32)
        hidden, mask = output.last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        pooled = hidden[:, 0] if source.pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        if source.normalize:
            pooled = torch.nn.functional.normalize(pooled, p=2, dim=1)
        return np.asarray(pooled[0], dtype=np.float32)

    probe = PROBE if isinstance(texts[0], str) else (PROBE, PROBE)
    with torch.inference_mode():
        answers = np.stack([answer(text) for text in texts])
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer(probe)
            times.append(time.perf_counter() - began)
    return Reference(answers, float(np.median(times)))
