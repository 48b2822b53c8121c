"""Deploying with the stock command line: a model's upload, a deploy to the first answer, a thousand revisions."""

from __future__ import annotations

import argparse
from typing import Any

from bench.deployed import deployed, revisions
from bench.platform import conditions
from bench.table import Row
from bench.upload import uploaded


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    rows = [*uploaded(min(options.rounds, 5)), *deployed(min(options.rounds, 5)), *revisions()]
    return {**conditions(), "rounds": min(options.rounds, 5)}, rows
