"""The stock classification service under `bentoml serve` and as an endpoint: a model that was really trained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from models.gate import softmax
from models.reference import ask_torch
from models.source import find_source
from tests.services.conftest import Trained
from tests.services.trained import TOPICS, sentence
from tests.system.running import Running
from tests.system.serving import serving

ASKED = [(topic, sentence(random.Random(number), topic)) for number in range(6) for topic in TOPICS]
TEXTS = [text for _, text in ASKED]


@pytest.fixture(scope="module")
def service(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    environment = trained.environment("fp32")
    target = "services.classification.service:Classification"
    with serving(target, environment, tmp_path_factory.mktemp("serve")) as client:
        yield client


def classify(service: httpx.Client, texts: Any) -> Any:
    answer = service.post("/classify", json={"texts": texts})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_text_is_given_its_class_with_pytorchs_score(service: httpx.Client, trained: Trained) -> None:
    answer = classify(service, TEXTS)
    assert [each[0]["label"] for each in answer] == [topic for topic, _ in ASKED]
    wanted = softmax(ask_torch(find_source(str(trained.sources["classifier"])), "text-classification", TEXTS).answers)
    for row, probabilities in zip(answer, wanted, strict=True):
        scores = [each["score"] for each in row]
        assert scores == sorted(scores, reverse=True)
        got = {each["label"]: each["score"] for each in row}
        np.testing.assert_allclose([got[topic] for topic in TOPICS], probabilities, atol=1e-4)


@pytest.mark.parametrize(("top_k", "rows"), [(1, 1), (3, 3), (99, len(TOPICS))])
def test_the_surest_classes_are_as_many_as_asked_for(service: httpx.Client, top_k: int, rows: int) -> None:
    answer = service.post("/top", json={"texts": TEXTS[:2], "top_k": top_k}).json()
    assert answer == [each[:rows] for each in classify(service, TEXTS[:2])]


def test_a_text_that_is_too_long_is_cut_where_the_card_says(service: httpx.Client, trained: Trained) -> None:
    room = trained.cards["classifier"]["max_tokens"] - 2  # the special tokens around a text
    start = "the parcel " * (room // 2)
    assert classify(service, [start + "storm " * 500]) == classify(service, [start])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"texts": []}, "at least 1 item"),
        ({"texts": ["fine", " \n"]}, "empty or white space only"),
        ({"texts": ["x"] * 257}, "at most 256 items"),
        ({"texts": ["x" * 100_001]}, "at most 100000 characters"),
        ({"texts": "not a list"}, "valid array"),
        ({"texts": ["fine"], "top_k": 0}, "greater than or equal to 1"),
    ],
)
def test_bad_input_is_a_clear_400(service: httpx.Client, call: dict[str, Any], message: str) -> None:
    for method in ("top",) if "top_k" in call else ("classify", "top"):
        answer = service.post(f"/{method}", json=call)
        assert answer.status_code == 400
        assert message in answer.json()["detail"][0]["msg"]


def test_the_gate_counted_the_right_classes_before_and_after(trained: Trained) -> None:
    card = trained.cards["classifier"]
    assert (card["labels"], card["activation"], card["worse"]) == (list(TOPICS), "softmax", [])
    assert {row["variant"]: row["metric"] for row in card["report"]}.items() >= {"pytorch": 1.0, "int8": 1.0}.items()


def test_an_endpoint_gives_each_of_many_callers_its_own_classes(platform: Running) -> None:
    url = f"{platform.url}/endpoints/classification"
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(lambda each: classify(client, [each, TEXTS[0]]), TEXTS))
        assert client.post("/classify", json={"texts": [""]}).status_code == 400
    assert [(one[0]["label"], other[0]["label"]) for one, other in answers] == [
        (topic, ASKED[0][0]) for topic, _ in ASKED
    ]
