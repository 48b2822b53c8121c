"""Arrays of floats as JSON: byte for byte as `json.dumps` writes them."""

from __future__ import annotations

import json
import random
import struct

import numpy as np
import pytest
from _bentoml_impl.serde import JSONSerde
from _bentoml_sdk.io_models import IODescriptor

from torpor.host.figures import FigureSerde, floats_as_json

EDGES = [
    0.0, -0.0, 1.0, 1e-4, 0.00099, 9.5e-5, -9.5e-5, 1e-5, 1.5e-5, 9e-6, 1e-7, 1.25e-10, 1e-100, 5e-324, 10.00001,
    100.00005, -20.00003, 1e15, 1e16, 1.5e16, 1e17, 1e22, 1.7976931348623157e308,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip


def floats() -> list[float]:
    rng = random.Random(4)
    bits = [struct.unpack("d", rng.randbytes(8))[0] for _ in range(20_000)]
    usual = [rng.choice((-1, 1)) * rng.random() * 10 ** rng.randint(-12, 18) for _ in range(20_000)]
    single = np.array(usual[:5_000], dtype=np.float32).tolist()
    half = np.array([rng.random() * 10 ** rng.randint(-6, 4) for _ in range(5_000)], dtype=np.float16).tolist()
    return [*EDGES, *bits, *usual, *single, *half]


def test_floats_are_written_as_python_writes_them() -> None:
    every = floats()
    assert floats_as_json(every) == json.dumps(every).encode()
    assert [floats_as_json(each) for each in EDGES] == [json.dumps(each).encode() for each in EDGES]


@pytest.mark.parametrize(
    "answer",
    [
        np.array([[0.1, 1e-5], [10.00001, -3.0]], dtype=np.float32),
        np.array([[[0.5]], [[1.5]]], dtype=np.float64),
        np.array([0.1, 2.5], dtype=np.float16),
        np.zeros((0, 3), dtype=np.float32),
        np.zeros((2, 0), dtype=np.float32),
        np.array([7], dtype=np.float32),
        np.array(0.5),
        np.array([1, 2]),
        np.array([True, False]),
        np.array(["a, b", "c"]),
    ],
)
def test_an_array_is_answered_as_bentoml_answers_it(answer: np.ndarray) -> None:
    def method() -> np.ndarray:
        return answer

    model = IODescriptor.from_output(method)(answer)
    ours, theirs = FigureSerde().serialize_model(model), JSONSerde().serialize_model(model)
    assert b"".join(ours.data) == b"".join(theirs.data)
    assert ours.headers == theirs.headers
