"""What `services/embedding` does, without torpor and BentoML: runs in the peers' own environment."""

from __future__ import annotations

import os

# Before numpy and the tokenizers start threads of their own.
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", ORT_DISABLE_TELEMETRY="1")

import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer


class Encoder:
    """MiniLM from a torpor export, in fp32 on one thread. The artifact's folder is in $MODEL."""

    def __init__(self) -> None:
        folder = Path(os.environ["MODEL"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised
        graph = str(folder / "tuned" / "fp32" / "model.onnx")
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_padding()  # to the longest of a batch
        self.tokenizer.enable_truncation(max_length=json.loads((folder / "card.json").read_text())["max_tokens"])

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        rows = self.tokenizer.encode_batch(texts)
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self.session.run(None, feed)[0]
        weights = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=np.float32)
