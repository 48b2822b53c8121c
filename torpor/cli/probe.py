"""`python -P -m torpor.cli.probe`: what a process with the platform's imports sees, printed as one JSON object.

For `torpor doctor`, which must not import them itself: what fails here is a finding, not a fault of the command.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

MODULES = ("bentoml", "onnxruntime", "numpy", "uvloop", "httptools", "uvicorn", "starlette", "sqlalchemy", "uv")


def probed() -> dict[str, Any]:
    """`missing`: modules and why; `threads` after the imports; `forked`: a child's status; `stale`: models' tags."""
    import importlib

    missing: dict[str, str] = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever keeps it from being imported is the finding
            missing[name] = f"{type(error).__name__}: {error}"
    found: dict[str, Any] = {"missing": missing, "threads": len(os.listdir("/proc/self/task"))}
    child = os.fork()
    if child == 0:
        os._exit(0)
    found["forked"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not missing.keys() & {"bentoml", "onnxruntime"}:
        found |= models()
    return found


def models() -> dict[str, Any]:
    """The runtime's providers, and the models that were tuned for another machine."""
    import bentoml
    import onnxruntime

    from torpor.onnx.artifact import fingerprint

    here = fingerprint()
    cards = {str(model.tag): model.info.metadata for model in bentoml.models.list()}
    exported = {tag: card for tag, card in cards.items() if "precisions" in card}
    stale = sorted(tag for tag, card in exported.items() if card.get("fingerprint", here) != here)
    return {"providers": onnxruntime.get_available_providers(), "models": len(exported), "stale": stale}


if __name__ == "__main__":
    json.dump(probed(), sys.stdout)
