"""BentoML's own client, which cannot tell the sides apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pytest

from tests.system.differential.pair import Pair


def through_client(pair: Pair, service: str, use: Callable[[Any], Any]) -> Any:
    """What the same use of the client yields on both sides."""

    def one(side: str) -> Any:
        with bentoml.SyncHTTPClient(pair.sides[side][service]) as client:
            return use(client)

    stock, torpor = pair.on_both(one)
    assert repr(torpor) == repr(stock)
    return stock


def test_models_text_and_defaults(pair: Pair) -> None:
    def use(client: Any) -> Any:
        return client.greet(person={"name": "Ada"}), client.add(a=1), client.text(word="ab"), client.root({"name": "B"})

    greeting, added, text, root = through_client(pair, "wide", use)
    assert (greeting["person"]["name"], added, text, root["age"]) == ("Ada", 3, "abab", 7)


def test_arrays(pair: Pair) -> None:
    doubled, sums = through_client(
        pair,
        "wide",
        lambda client: (
            client.double(array=np.arange(4.0).reshape(2, 2)),
            client.batched_array(rows=np.ones((2, 3))),
        ),
    )
    np.testing.assert_array_equal(doubled, [[0.0, 2.0], [4.0, 6.0]])
    np.testing.assert_array_equal(sums, [3.0, 3.0])


def test_streams(pair: Pair) -> None:
    assert through_client(pair, "wide", lambda client: "".join(client.count_up(to=3))) == "0\n1\n2\n"


def test_files_in_and_out(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")

    def use(client: Any) -> Any:
        return client.length(file=path), client.lengths(files=[path, path]), client.report().read_text()

    length, lengths, text = through_client(pair, "files", use)
    assert (length["length"], lengths, text) == (5, [5, 5], "a,b\n1,2\n")


def test_errors(pair: Pair) -> None:
    def use(client: Any) -> str:
        with pytest.raises(bentoml.exceptions.BentoMLException) as raised:
            client.divide(a=1, b=0)
        with pytest.raises(bentoml.exceptions.InvalidArgument) as refused:
            client.add(a="x")
        return f"{raised.value} {raised.value.error_code} {refused.value}"

    assert "An unexpected error has occurred" in through_client(pair, "wide", use)
