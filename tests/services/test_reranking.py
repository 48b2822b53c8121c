"""The stock reranking service under `bentoml serve` and as an endpoint: a cross-encoder that was really trained."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from models.export import Order, export
from models.reference import ask_torch
from models.source import find_source
from models.steps import Steps
from tests.models.conftest import store_at
from tests.services.conftest import Trained
from tests.services.trained import TOPICS, sentence
from tests.system.running import Running
from tests.system.serving import serving
from torpor.errors import ExportRefused
from torpor.tokenizer import CompactEncoder

RNG = random.Random(8)
QUERIES = {topic: sentence(RNG, topic) for topic in TOPICS}
DOCUMENTS = [sentence(RNG, topic) for topic in TOPICS for _ in range(2)]


@pytest.fixture(scope="module")
def service(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    environment = trained.environment("fp32")
    with serving("services.reranking.service:Reranking", environment, tmp_path_factory.mktemp("serve")) as client:
        yield client


def rank(service: httpx.Client, **call: Any) -> Any:
    answer = service.post("/rank", json=call)
    assert answer.status_code == 200, answer.text
    return answer.json()


def of_topic(topic: str) -> set[int]:
    first = 2 * list(TOPICS).index(topic)
    return {first, first + 1}


@pytest.mark.parametrize("topic", TOPICS)
def test_what_answers_the_query_comes_first_with_pytorchs_score(
    topic: str, service: httpx.Client, trained: Trained
) -> None:
    answer = rank(service, query=QUERIES[topic], documents=DOCUMENTS)
    assert {each["index"] for each in answer[:2]} == of_topic(topic)
    scores = [each["score"] for each in answer]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] > 0.5 > scores[2]
    pairs = [(QUERIES[topic], DOCUMENTS[each["index"]]) for each in answer]
    logits = ask_torch(find_source(str(trained.sources["reranker"])), "text-ranking", pairs).answers[:, 0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-4)


def test_the_best_are_as_many_as_asked_for(service: httpx.Client) -> None:
    call = {"query": QUERIES["payment"], "documents": DOCUMENTS}
    assert rank(service, **call, top_k=3) == rank(service, **call)[:3]
    assert rank(service, **call, top_k=99) == rank(service, **call)


def test_the_longer_of_query_and_document_is_cut(service: httpx.Client) -> None:
    query, others = QUERIES["weather"], ["the parcel was late", "the bill was late"]
    long = "the storm was late " * 500
    assert rank(service, query=query, documents=[*others, long])[0]["index"] == 2  # the query is still read
    assert rank(service, query=long, documents=[*others, query])[0]["index"] == 2  # and so are short documents


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"query": " ", "documents": ["fine"]}, "empty or white space only"),
        ({"query": "fine", "documents": []}, "at least 1 item"),
        ({"query": "fine", "documents": ["fine", ""]}, "empty or white space only"),
        ({"query": "fine", "documents": ["x"] * 257}, "at most 256 items"),
        ({"query": "fine", "documents": ["x" * 100_001]}, "at most 100000 characters"),
        ({"query": "x" * 100_001, "documents": ["fine"]}, "at most 100000 characters"),
        ({"query": "fine", "documents": ["fine"], "top_k": 0}, "greater than or equal to 1"),
        ({"documents": ["fine"]}, "Field required"),
    ],
)
def test_bad_input_is_a_clear_400(service: httpx.Client, call: dict[str, Any], message: str) -> None:
    answer = service.post("/rank", json=call)
    assert answer.status_code == 400
    assert message in answer.json()["detail"][0]["msg"]


def test_the_gate_ranked_pairs_before_and_after(trained: Trained) -> None:
    card = trained.cards["reranker"]
    assert (card["task"], card["activation"], card["worse"]) == ("text-ranking", "sigmoid", [])
    original, exact, int8 = card["report"][:3]
    assert original["metric"] > 0.7  # of a correlation with 0 and 1, of which a quarter are 1, the most is 0.77
    assert exact["first"] == 1.0
    assert int8["ranking"] > 0.97


def test_a_tokenizer_that_mixes_up_query_and_document_is_refused_by_the_gate(
    trained: Trained, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = CompactEncoder.encode_pair

    def of_one_type(self: CompactEncoder, one: str, other: str) -> tuple[list[int], list[int]]:
        ids, _ = encode(self, one, other)
        return ids, [0] * len(ids)

    monkeypatch.setattr("models.tokenizer.same_pairs", lambda *_: True)
    monkeypatch.setattr(CompactEncoder, "encode_pair", of_one_type)
    order = Order(str(trained.sources["reranker"]), "text-ranking", ("fp32",), "mixed", trained.samples["reranker"])
    with store_at(folder / "refused"), pytest.raises(ExportRefused, match=r"fp32: max_abs_error .* ranking 0\.\d+"):
        export(order, Steps(6, "none"))


def test_an_endpoint_ranks(platform: Running) -> None:
    with httpx.Client(base_url=f"{platform.url}/endpoints/reranking", timeout=60) as client:
        for topic, query in QUERIES.items():
            answer = rank(client, query=query, documents=DOCUMENTS, top_k=2)
            assert {each["index"] for each in answer} == of_topic(topic)
        assert client.post("/rank", json={"query": "", "documents": ["x"]}).status_code == 400
