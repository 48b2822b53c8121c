"""Samples: the texts, or pairs of texts, that the gate sends through a model before and after its export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torpor.errors import BadRequest

LONGEST = " ".join(
    ["The committee met in the old town hall to discuss the harbour, the school roof and the budget of the year."] * 24
)

BUILT_IN = (
    "hello",
    "ok",
    "42",
    "Reset my password.",
    "I forgot my password and cannot log in.",
    "How do I change the e-mail address of my account?",
    "Where is my parcel?",
    "The delivery is three days late and nobody answers the phone.",
    "My order arrived damaged; I would like my money back.",
    "Can I pay with a bank transfer?",
    "The cat sat on the mat.",
    "A kitten is resting on a rug.",
    "Dogs bark at night.",
    "The stock market fell sharply on Monday.",
    "Shares lost four percent after the central bank raised its rate.",
    "Inflation slowed in the euro area last month.",
    "The quarterly report shows a profit of 1,204,000 dollars.",
    "Paris is the capital of France.",
    "What is the capital of France?",
    "The Eiffel Tower was finished in 1889.",
    "Water boils at 100 degrees Celsius at sea level.",
    "At what temperature does water boil?",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Plants make their food from sunlight.",
    "The heart pumps blood through the body.",
    "She plays the violin in an orchestra.",
    "He is learning to play the guitar.",
    "The concert was sold out within minutes.",
    "This film is a waste of two hours.",
    "One of the best films I have seen in years!",
    "The food was good, the service was slow, and the bill was a surprise.",
    "I would not recommend this hotel to anybody.",
    "def add(a, b): return a + b",
    "SELECT name FROM users WHERE age > 30 ORDER BY name;",
    "TypeError: 'NoneType' object is not subscriptable",
    "How do I reverse a list in Python?",
    "Use list.reverse() or slicing with a negative step.",
    "https://example.org/a/long/path?with=query&and=more#fragment",
    "C'est une belle journée pour se promener.",
    "Das Wetter ist heute schön, wir gehen spazieren.",
    "El tren sale a las ocho de la mañana.",
    "今日はいい天気ですね。",
    "Привет, как дела?",
    "😀 emoji, ünïcödé and\ttabs\n\nand line breaks",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "Antidisestablishmentarianism is a word that hardly anybody uses.",
    "The treaty was signed in 1648 and ended thirty years of war in Central Europe, in which a third of the "
    "population of some regions had died of hunger, plague and violence.",
    "When the router has no ready replica, it parks the call, starts one replica for all the callers who wait, and "
    "forwards each of them as soon as that replica has said that it can answer; a caller who leaves meanwhile does "
    "not stop the start, because the others still want it.",
    LONGEST[: len(LONGEST) // 3],
    LONGEST,
)

# For a model that ranks: each of these with each of those.
QUERIES = (*(text for text in BUILT_IN if text.endswith("?")), "hello", "late delivery", "sort a list in python")
DOCUMENTS = (*BUILT_IN[4:20:2], *BUILT_IN[20:37:2], *BUILT_IN[46:48], LONGEST)

Text = str | tuple[str, str]  # what a model is given at once: one text, or a query and a document


@dataclass(frozen=True)
class Samples:
    """Texts, and what they should come out as where that is known.

    `labels` are class names or indices, one a text, for a classifier; `pairs` are (index, index, score) for
    embeddings; `relevance` are scores, one a text, where each text is a query with a document. All may be empty.
    """

    texts: tuple[Text, ...]
    labels: tuple[str | None, ...] = ()
    pairs: tuple[tuple[int, int, float], ...] = ()
    relevance: tuple[float | None, ...] = ()

    @property
    def single(self) -> tuple[str, ...]:
        """Every single text, once."""
        return tuple(dict.fromkeys(each for text in self.texts for each in singles(text)))

    @property
    def queries(self) -> tuple[str, ...]:
        return tuple(singles(text)[0] for text in self.texts)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.texts, self.labels, self.pairs, self.relevance]).encode()).hexdigest()[
            :16
        ]


def singles(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def read_samples(path: Path | None, *, ranking: bool = False) -> Samples:
    """The built-in texts, and those of a file: plain lines, or JSON lines when its name ends in .jsonl.

    A JSON line is `{"text"}`, `{"text", "label"}`, or `{"text", "text2", "score"}` (how alike the two are). With
    `ranking` the built-in texts are pairs, and so has each line to be: a query, a document, how relevant it is.
    Raises BadRequest naming the line that is none of these.
    """
    if ranking:
        return _ranked([] if path is None else _rows(path), path)
    texts, labels, pairs = list(BUILT_IN), [None] * len(BUILT_IN), []
    rows = [] if path is None else _rows(path)
    labels_found: list[str | None] = list(labels)
    for row in rows:
        texts.append(row["text"])
        labels_found.append(None if row.get("label") is None else str(row["label"]))
        if "text2" in row:
            texts.append(row["text2"])
            labels_found.append(None)
            pairs.append((len(texts) - 2, len(texts) - 1, float(row["score"])))
    known = tuple(labels_found) if any(label is not None for label in labels_found) else ()
    return Samples(tuple(texts), known, tuple(pairs))


def _ranked(rows: Iterable[dict[str, Any]], path: Path | None) -> Samples:
    texts: list[Text] = list(product(QUERIES, DOCUMENTS))
    relevance: list[float | None] = [None] * len(texts)
    for number, row in enumerate(rows, 1):
        if "text2" not in row:
            raise BadRequest(
                f"{path}, sample {number} is one text; a model that ranks reads a query and a document.\n"
                'Write {"text": "the query", "text2": "the document", "score": 0.8}, one a line, in a .jsonl file.'
            )
        texts.append((row["text"], row["text2"]))
        relevance.append(float(row["score"]))
    known = tuple(relevance) if any(score is not None for score in relevance) else ()
    return Samples(tuple(texts), relevance=known)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise BadRequest(f"There is no file {path}.\nName a file with one sample a line (.txt or .jsonl).")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.suffix != ".jsonl":
        return [{"text": line} for line in lines]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            valid = isinstance(row["text"], str) and isinstance(row.get("text2", ""), str)
            if "text2" in row:
                float(row["score"])
        except (ValueError, KeyError, TypeError):
            valid = False
        if not valid:
            raise BadRequest(
                f"{path}, sample {number} is not a sample: {line[:80]}\n"
                'Write {"text": "...", "label": ...} or {"text": "...", "text2": "...", "score": 0.8}, one a line.'
            )
        rows.append(row)
    return rows
