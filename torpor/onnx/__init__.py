"""Exported models: artifacts, the graph that is right for this machine, sessions. Light: onnxruntime comes when needed.

`torpor.onnx.artifact` is the model on disk, `torpor.onnx.session` what runs it.
"""

from torpor.onnx.artifact import (
    CARD,
    GRAPH,
    StoredModel,
    cpu_flags,
    fingerprint,
    read_card,
    session_options,
    tune,
)
from torpor.onnx.session import (
    Session,
    finish_hurried,
    forget_early,
    hold,
    open_early,
    open_session,
    opened,
    rehearse,
    release,
)

__all__ = [
    "CARD",
    "GRAPH",
    "Session",
    "StoredModel",
    "cpu_flags",
    "fingerprint",
    "finish_hurried",
    "forget_early",
    "hold",
    "open_early",
    "open_session",
    "opened",
    "read_card",
    "rehearse",
    "release",
    "session_options",
    "tune",
]
