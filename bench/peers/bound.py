"""The in-process bound: the service's own method in a loop. `python -m bench.peers.bound ITEMS SECONDS TEXT`.

Prints one JSON number: items a second.
"""

from __future__ import annotations

import json
import sys
import time

from bench.platform import ROOT
from torpor.host.service import load


def bound(items: int, seconds: float, text: str) -> float:
    """The best of a few stretches, so that a busy moment of the machine does not lower the bound."""
    instance = load("service:Embedding", str(ROOT / "services" / "embedding"))()
    texts = [text] * items
    instance.embed.local(texts)
    best, until = 0.0, time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        runs = 0
        while time.perf_counter() - began < seconds / 4:
            instance.embed.local(texts)
            runs += 1
        best = max(best, runs * items / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    json.dump(bound(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]), sys.stdout)
