"""The stock embedding service under stock `bentoml serve`: the real model, answering like PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.reference import ask_torch
from models.samples import BUILT_IN
from models.source import find_source
from tests.models.minilm import minilm_environment
from tests.system.serving import serving

TEXTS = [*BUILT_IN[:12], BUILT_IN[-1]]  # the last is longer than the model reads


# fp32 is PyTorch's arithmetic in another order. int8 is not: how far off a text lands depends on the CPU and on the
# texts beside it (0.95 to 0.97 for the farthest one seen), so only the mean is held near.
NEAR = {"fp32": (0.9999, 0.9999), "int8": (0.985, 0.9)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the service as it is deployed, in int8."""
    with embedding("int8", tmp_path_factory.mktemp("serve")) as client:
        yield client


def embedding(precision: str, folder: Path) -> contextlib.AbstractContextManager[httpx.Client]:
    environment = minilm_environment() | {"TORPOR_PRECISION": precision}
    return serving("services.embedding.service:Embedding", environment, folder)


def embed(service: httpx.Client, texts: Any) -> httpx.Response:
    return service.post("/embed", json={"texts": texts})


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_embeddings_agree_with_pytorch(precision: str, service: httpx.Client, tmp_path: Path) -> None:
    with contextlib.nullcontext(service) if precision == "int8" else embedding(precision, tmp_path) as client:
        answer = embed(client, TEXTS)
    assert answer.status_code == 200
    vectors = np.array(answer.json(), dtype=np.float32)
    wanted = ask_torch(find_source("minilm"), "feature-extraction", TEXTS).answers
    cosines = (vectors * wanted).sum(axis=1)
    assert vectors.shape == (len(TEXTS), 384)
    mean, farthest = NEAR[precision]
    assert cosines.mean() > mean
    assert cosines.min() > farthest
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_rows_are_in_the_order_of_the_texts(service: httpx.Client) -> None:
    forth = np.array(embed(service, TEXTS).json())
    back = np.array(embed(service, TEXTS[::-1]).json())[::-1]
    assert ((forth * back).sum(axis=1) > 0.98).all()


def test_alike_texts_are_nearer_than_unlike_ones(service: httpx.Client) -> None:
    texts = ["A man plays the guitar.", "Someone is playing a guitar.", "The stock market fell on Monday."]
    one, alike, unlike = np.array(embed(service, texts).json())
    assert one @ alike > 0.7
    assert one @ unlike < 0.3


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "at least 1 item"),
        (["fine", " \n"], "empty or white space only"),
        ([""], "empty or white space only"),
        (["x"] * 257, "at most 256 items"),
        (["x" * 100_001], "at most 100000 characters"),
        ("not a list", "valid array"),
        ([1], "valid string"),
        (None, "valid array"),
    ],
)
def test_bad_input_is_a_clear_400(service: httpx.Client, texts: Any, message: str) -> None:
    answer = embed(service, texts)
    assert answer.status_code == 400
    assert message in answer.json()["detail"][0]["msg"]


def test_a_bad_call_does_not_fail_its_neighbours(service: httpx.Client) -> None:
    assert embed(service, ["ok"]).status_code == 200
    assert embed(service, [""]).status_code == 400
    assert embed(service, ["ok"]).status_code == 200
