"""The embedding under Mosec, batched. BATCH and its own MOSEC_PORT are environment."""

from __future__ import annotations

import os
from typing import Any

from mosec import Server, Worker  # type: ignore[import-not-found]  # in the peers' environment

from bench.peers.encoder import Encoder


class Embedding(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        self.encoder = Encoder()

    def forward(self, calls: list[dict[str, Any]]) -> list[list[list[float]]]:
        return [[row] for row in self.encoder.embed([call["texts"][0] for call in calls]).tolist()]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Embedding, num=1, max_batch_size=int(os.environ["BATCH"]), max_wait_time=1, route="/embed")
    server.run()
