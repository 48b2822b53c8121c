"""`python -m bench NAME [--json]`: torpor and its peers, interleaved, on this machine."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

from bench.table import show
from torpor.errors import EngineUnreachable

BENCHES = {
    "cold": "a call at zero replicas to the last byte of its answer, beside `bentoml serve`",
    "proxy": "the router's proxy beside nginx",
    "throughput": "calls a second of one embedding service, beside servers that batch",
    "memory": "what platform, sleeping endpoints, templates and replicas take, beside `bentoml serve`",
    "scale": "two thousand endpoints registered, one in use, beside one alone",
    "soak": "mixed calls for minutes: the router's memory, descriptors and tasks stay flat",
    "deploy": "by the stock bentoml command: an upload beside cp and sha256sum, a deploy, a thousand revisions",
    "containers": "calls of containers that sleep, beside the engine's floor and processes; memory; twenty at random",
    "swap": "eight models of which three fit into memory, beside the longest unused alone",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "name", choices=[*BENCHES, "all"], help="; ".join(f"{n}: {what}" for n, what in BENCHES.items())
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a bench")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="length of one load of proxy and throughput, in each round"
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="length of soak, 30 for the long one; of containers' calls at random"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a bench has started ends with it
    missed = False
    for name in BENCHES if options.name == "all" else [options.name]:
        try:
            conditions, rows = importlib.import_module(f"bench.{name}").run(options)
        except EngineUnreachable as error:
            print(error, file=sys.stderr)
            missed = True
            continue
        show(name, conditions, rows, options.json)
        missed = missed or not all(row.met for row in rows)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
