"""The reference: what PyTorch answers for the samples. Its own tokenizer, its own pooling: nothing shared with ONNX."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.samples import Text, singles
from models.source import Source

Floats = NDArray[np.float32]
PROBE = "How do I change the e-mail address of my account?"  # the text that latencies are taken on
ROUNDS = 15


@dataclass(frozen=True)
class Reference:
    """Answers of the original model: embeddings (n, dimension) or logits (n, classes), and its latency in seconds."""

    answers: Floats
    latency_p50: float


def ask_torch(source: Source, task: str, texts: Sequence[Text]) -> Reference:
    """Runs every text, or pair of texts, alone through the original model, on one thread. Blocks for seconds."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    kind = AutoModel if task == "feature-extraction" else AutoModelForSequenceClassification
    model = kind.from_pretrained(source.folder, local_files_only=True, dtype=torch.float32).eval()
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
