"""The gate: how far an exported graph may stray from the model it came from, by task and precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.samples import Samples
from torpor.errors import ExportRefused

Floats = NDArray[np.float32]
TASKS = ("feature-extraction", "text-classification", "text-ranking")
TIED = 0.01  # of the range of all scores: documents that are this near to the best one are as good


@dataclass(frozen=True)
class Bound:
    """A metric, its limit, and on which side of the limit it has to be."""

    metric: str
    limit: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        # Written so that NaN fails both.
        return value <= self.limit if self.at_most else value >= self.limit


# fp32 is the same arithmetic in another order. int8: what per-channel quantisation of small encoders keeps, with a
# margin below (mean cosine .992-.994, Spearman .991 for MiniLM) and well above what per-tensor loses (.954, .947).
BOUNDS: dict[tuple[str, str], tuple[Bound, ...]] = {
    ("feature-extraction", "fp32"): (
        Bound("cosine_mean", 0.9999),
        Bound("cosine_batched", 0.9999),
        Bound("max_abs_error", 1e-3, at_most=True),
        Bound("ranking", 0.999),
        Bound("metric_loss", 0.005, at_most=True),
    ),
    ("feature-extraction", "int8"): (
        Bound("cosine_mean", 0.99),
        Bound("cosine_batched", 0.985),
        Bound("ranking", 0.97),
        Bound("metric_loss", 0.02, at_most=True),
    ),
    ("text-classification", "fp32"): (
        Bound("agreement", 0.99),
        Bound("max_abs_error", 1e-2, at_most=True),
        Bound("ranking", 0.999),
        Bound("metric_loss", 0.005, at_most=True),
    ),
    ("text-classification", "int8"): (
        Bound("agreement", 0.95),
        Bound("ranking", 0.97),
        Bound("metric_loss", 0.02, at_most=True),
    ),
    ("text-ranking", "fp32"): (
        Bound("max_abs_error", 1e-2, at_most=True),
        Bound("ranking", 0.999),
        Bound("ranking_batched", 0.999),
        Bound("first", 0.99),
        Bound("metric_loss", 0.005, at_most=True),
    ),
    ("text-ranking", "int8"): (
        Bound("ranking", 0.97),
        Bound("ranking_batched", 0.97),
        Bound("first", 0.9),
        Bound("metric_loss", 0.02, at_most=True),
    ),
}


def compare(task: str, wanted: Floats, got: Floats, batched: Floats, queries: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of one graph. `got` are answers to single texts, `batched` to padded batches of the same texts.

    feature-extraction: `ranking` is Spearman's correlation of all pairs' similarities, `neighbours` the share of
    texts with the same nearest neighbour. text-classification: `ranking` is that of all class probabilities.
    text-ranking: `ranking` is that of all scores, `first` the share of `queries` with the same best document.
    """
    metrics = {"max_abs_error": float(np.abs(wanted - got).max())}
    if task == "text-classification":
        metrics["agreement"] = float((wanted.argmax(1) == got.argmax(1)).mean())
        metrics["agreement_batched"] = float((wanted.argmax(1) == batched.argmax(1)).mean())
        metrics["ranking"] = spearman(softmax(wanted).ravel(), softmax(got).ravel())
    elif task == "text-ranking":
        metrics["ranking"] = spearman(wanted.ravel(), got.ravel())
        metrics["ranking_batched"] = spearman(wanted.ravel(), batched.ravel())
        metrics["first"] = same_first(wanted.ravel(), got.ravel(), queries)
    else:
        cosines = cosine(wanted, got)
        metrics["cosine_mean"], metrics["cosine_min"] = float(cosines.mean()), float(cosines.min())
        metrics["cosine_batched"] = float(cosine(wanted, batched).mean())
        pairs = np.triu_indices(len(wanted), k=1)
        ours, theirs = similarities(got), similarities(wanted)
        metrics["ranking"] = spearman(theirs[pairs], ours[pairs])
        metrics["neighbours"] = float((nearest(theirs) == nearest(ours)).mean())
    return metrics


def task_metric(task: str, answers: Floats, samples: Samples, labels: list[str]) -> float | None:
    """Accuracy, or Spearman's correlation with the given scores; None where the samples say nothing."""
    if task == "text-classification" and samples.labels:
        guesses = answers.argmax(1)
        named = [(guess, label) for guess, label in zip(guesses, samples.labels, strict=True) if label is not None]
        right = [label in (str(guess), labels[guess] if guess < len(labels) else None) for guess, label in named]
        return float(np.mean(right))
    if task == "text-ranking" and samples.relevance:
        told = [row for row, score in enumerate(samples.relevance) if score is not None]
        return spearman(np.array([samples.relevance[row] for row in told], dtype=np.float32), answers.ravel()[told])
    if task == "feature-extraction" and len(samples.pairs) > 1:
        one, other, score = (np.array(column) for column in zip(*samples.pairs, strict=True))
        return spearman(score, cosine(answers[one], answers[other]))
    return None


def faults(task: str, precision: str, metrics: dict[str, float]) -> list[str]:
    """One line for each bound that does not hold; empty when the graph passes."""
    return [
        f"{bound.metric} {metrics[bound.metric]:.6g} is {'above' if bound.at_most else 'below'} {bound.limit:g}"
        for bound in BOUNDS[task, precision]
        if bound.metric in metrics and not bound.holds(metrics[bound.metric])
    ]


def refuse(name: str, task: str, found: dict[str, list[str]], report: list[dict[str, Any]]) -> None:
    """Raises ExportRefused when a variant has faults, with the report's rows as detail."""
    lines = [f"{variant}: {', '.join(broken)}" for variant, broken in found.items() if broken]
    if lines:
        raise ExportRefused(
            f"{name} is refused: {'; '.join(lines)} (the bounds for {task}).\n"
            "Leave that precision out, or keep it all the same with --allow-worse, which the card will say.",
            detail={"faults": {variant: broken for variant, broken in found.items() if broken}, "report": report},
        )


def stacked(answers: list[Floats]) -> Floats:
    return np.concatenate(answers).astype(np.float32)


def cosine(one: Floats, other: Floats) -> Floats:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((one * other).sum(axis=1) / norms, dtype=np.float32)


def similarities(vectors: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T, dtype=np.float32)


def nearest(square: Floats) -> NDArray[np.int64]:
    others = square.copy()
    np.fill_diagonal(others, -np.inf)
    return np.asarray(others.argmax(axis=1), dtype=np.int64)


def same_first(wanted: Floats, got: Floats, queries: Sequence[str]) -> float:
    """Of how many queries the document that comes first is the original's first, or tied with it."""
    tied = TIED * float(np.ptp(wanted))
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        rows.setdefault(query, []).append(row)
    found = [wanted[own][got[own].argmax()] >= wanted[own].max() - tied for own in rows.values()]
    return float(np.mean(found)) if np.isfinite(got).all() else float("nan")


def softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


def spearman(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Rank correlation; equal values share their mean rank. NaN when either holds one."""
    if np.isnan(one).any() or np.isnan(other).any():
        return float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], dtype=np.float64)
