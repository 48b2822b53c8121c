"""Steps: what a long export says while it works, one line a step on stderr."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import IO

KINDS = ("lines", "json", "none")


@dataclass
class Steps:
    """Counts the steps of one export. `kind`: lines to read, JSON lines for another program, or none."""

    total: int
    kind: str = "lines"
    stream: IO[str] = field(default_factory=lambda: sys.stderr)
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def begin(self, what: str) -> None:
        self.done += 1
        seconds = time.monotonic() - self.began
        if self.kind == "json":
            event = {"event": "step", "step": self.done, "of": self.total, "what": what, "seconds": round(seconds, 1)}
            print(json.dumps(event), file=self.stream, flush=True)
        elif self.kind == "lines":
            print(f"[{self.done}/{self.total}] {seconds:5.1f} s  {what}", file=self.stream, flush=True)
