"""The trained models, exported through the gate into one model store, and a platform that uses it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models.conftest import store_at
from tests.services.trained import TOPICS, sentence, train_classifier, train_reranker
from tests.system.running import REPOSITORY, Running, running


@dataclass(frozen=True)
class Trained:
    """`home` is a BentoML home with both models; `sources` the folders that they were exported from."""

    home: Path
    sources: dict[str, Path]
    samples: dict[str, Path]
    cards: dict[str, dict[str, Any]]

    def environment(self, precision: str) -> Mapping[str, str]:
        own = {"BENTOML_HOME": str(self.home), "BENTOML_DO_NOT_TRACK": "True", "TORPOR_PRECISION": precision}
        return os.environ | own | {"PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="session")
def trained(folder: Path) -> Trained:
    from models.export import Order, export
    from models.steps import Steps

    classifier = train_classifier(folder / "classifier")
    sources = {"classifier": classifier, "reranker": train_reranker(folder / "reranker", classifier)}
    samples = {name: folder / f"{name}.jsonl" for name in sources}
    samples["classifier"].write_text("\n".join(map(json.dumps, labelled())))
    samples["reranker"].write_text("\n".join(map(json.dumps, paired())))
    cards = {}
    with store_at(folder / "bentoml"):
        for name, task in (("classifier", "text-classification"), ("reranker", "text-ranking")):
            order = Order(str(sources[name]), task, ("fp32", "int8"), name, samples[name])
            cards[name] = export(order, Steps(6, "none")).card
    return Trained(folder / "bentoml", sources, samples, cards)


def labelled() -> list[dict[str, Any]]:
    rng = random.Random(5)
    return [{"text": sentence(rng, topic), "label": topic} for topic in TOPICS for _ in range(15)]


def paired() -> list[dict[str, Any]]:
    """Each of a few queries with a document of each topic."""
    rng = random.Random(6)
    queries = [(topic, sentence(rng, topic)) for topic in TOPICS for _ in range(5)]
    return [
        {"text": query, "text2": sentence(rng, topic), "score": float(topic == own)}
        for own, query in queries
        for topic in TOPICS
    ]


@pytest.fixture(scope="session")
def platform(trained: Trained, folder: Path) -> Iterator[Running]:
    """With both services deployed from their folders, in int8 as they are."""
    with running(folder) as each:
        each.told("deploy", str(REPOSITORY / "services" / "classification"), "--name", "classification")
        each.told("deploy", str(REPOSITORY / "services" / "reranking"), "--name", "reranking")
        yield each
