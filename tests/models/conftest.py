"""Fixtures of the export's tests: a tiny source, its artifact, a model store of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.tiny import make_tiny

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence encoder in a Hugging Face folder."""
    return make_tiny(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="session")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder's artifact, as it lies in the store; do not change it, see `artifact`."""
    from models.export import Order, export
    from models.steps import Steps

    home = tmp_path_factory.mktemp("exported")
    with store_at(home):
        return Path(
            export(Order(str(tiny), "feature-extraction", ("fp32", "int8"), "tiny"), Steps(6, "none")).model.path
        )


@pytest.fixture
def artifact(exported: Path, tmp_path: Path) -> Path:
    """A copy of the artifact that a test may damage."""
    return shutil.copytree(exported, tmp_path / "artifact")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A BentoML home of the test's own, used by this process too."""
    with store_at(tmp_path / "home"):
        yield tmp_path / "home"


class store_at:
    """Points this process's BentoML at another home."""

    def __init__(self, home: Path) -> None:
        self.models = home / "models"

    def __enter__(self) -> None:
        from bentoml._internal.configuration.containers import BentoMLContainer
        from bentoml._internal.models import ModelStore

        self.models.mkdir(parents=True, exist_ok=True)
        BentoMLContainer.model_store_dir.set(str(self.models))
        BentoMLContainer.model_store.set(ModelStore(self.models))

    def __exit__(self, *_: object) -> None:
        from bentoml._internal.configuration.containers import BentoMLContainer

        BentoMLContainer.model_store_dir.reset()
        BentoMLContainer.model_store.reset()
