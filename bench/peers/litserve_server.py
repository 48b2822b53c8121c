"""The embedding under LitServe, batched. PORT and BATCH are environment."""

from __future__ import annotations

import os
from typing import Any

import litserve  # type: ignore[import-not-found]  # in the peers' environment
import numpy as np
from numpy.typing import NDArray

from bench.peers.encoder import Encoder


class Embedding(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.encoder = Encoder()

    # LitServe reads the annotation, and takes JSON as it comes where there is none.
    def decode_request(self, request, **_: Any) -> str:  # type: ignore[no-untyped-def]
        return str(request["texts"][0])

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, texts: list[str], **_: Any) -> NDArray[np.float32]:
        return self.encoder.embed(texts)

    def unbatch(self, output: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return list(output)

    def encode_response(self, output: NDArray[np.float32], **_: Any) -> list[list[float]]:
        return [output.tolist()]


if __name__ == "__main__":
    port, batch = int(os.environ["PORT"]), int(os.environ["BATCH"])
    api = Embedding(max_batch_size=batch, batch_timeout=0.001, api_path="/embed")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False, num_api_servers=1)
