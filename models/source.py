"""A source: the Hugging Face folder that an export starts from, and what it says about itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.recipes import RECIPES
from torpor.errors import BadRequest, ModelNotFound

# What decides an export's result; a changed README does not make another model, except for its licence.
DIGESTED = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*/config.json")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Source:
    """A local folder with a model. `pooling` and `normalize` are those of its sentence-transformers modules."""

    name: str  # as the user gave it
    folder: Path
    digest: str  # sha256 over the files that decide the result
    license: str | None
    config: dict[str, Any]
    max_tokens: int  # a longer text is cut to this many tokens, special ones included
    pooling: str  # mean or cls
    normalize: bool

    @property
    def activation(self) -> str:
        """What makes scores of a classifier's logits: softmax, sigmoid or identity."""
        # A cross-encoder's own is a class by its full name, where sentence-transformers saves it now, or did before 4.
        now, before = self.config.get("sentence_transformers") or {}, "sbert_ce_default_activation_function"
        if str(now.get("activation_fn") or self.config.get(before)).endswith(".Identity"):
            return "identity"
        several = self.config.get("problem_type") == "multi_label_classification"
        return "sigmoid" if several or len(self.labels) == 1 else "softmax"

    @property
    def labels(self) -> list[str]:
        """A classifier's class names in the order of its logits."""
        names = self.config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}  # what transformers leaves out
        return [str(names[key]) for key in sorted(names, key=int)]


def find_source(name: str) -> Source:
    """Resolves a recipe, a local folder or a hub id. Raises ModelNotFound, or BadRequest for a folder without weights.

    Blocks; a hub id that is not in the local cache is downloaded.
    """
    folder = _folder(name)
    config = _json(folder / "config.json")
    if not config:
        raise BadRequest(
            f"{folder} is no Hugging Face model: it has no config.json.\n"
            "Name the folder that `save_pretrained` wrote, a hub id, or a recipe."
        )
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        raise BadRequest(
            f"{folder} holds no weights (*.safetensors or pytorch_model*.bin).\n"
            "Save the model with `model.save_pretrained(folder)`, then export that folder."
        )
    return Source(
        name=name,
        folder=folder,
        digest=_digest(folder),
        license=_license(folder),
        config=config,
        max_tokens=_max_tokens(folder, config),
        pooling="cls" if _json(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token") else "mean",
        normalize=any("Normalize" in str(module.get("type")) for module in _list(folder / "modules.json")),
    )


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name).resolve()
    if name in RECIPES:
        return RECIPES[name]()
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ModelNotFound(f"There is no folder {name}.\nName an existing Hugging Face folder, a hub id, or a recipe.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*DIGESTED, "README.md"]))
    except (OSError, ValueError) as reason:  # huggingface_hub's errors, offline mode included, derive from these
        first_line = str(reason).strip().splitlines()[0]
        raise ModelNotFound(
            f"{name} is no local folder, no recipe ({', '.join(RECIPES)}), and the hub gave nothing: {first_line}\n"
            "Check the spelling and the network, or download the model and name its folder."
        ) from reason


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def _list(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found if isinstance(found, list) else []


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    """sentence-transformers' own bound first, then the tokenizer's, never more than there are position embeddings."""
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # these number positions from padding_idx + 1
    stated = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    stated = stated or _json(folder / "tokenizer_config.json").get("model_max_length")
    return min(int(stated or positions), positions)


def _license(folder: Path) -> str | None:
    readme = folder / "README.md"
    if not readme.exists():
        return None
    front = re.match(r"---\n(.*?)\n---", readme.read_text(encoding="utf-8"), re.DOTALL)
    found = re.search(r"^license:\s*(\S+)\s*$", front.group(1), re.MULTILINE) if front else None
    return found.group(1) if found else None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in DIGESTED for path in folder.glob(pattern) if path.is_file()}):
        digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
