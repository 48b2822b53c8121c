"""An export, from source to store: the order of its steps, and what the card says in the end."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torpor
from models import gate, store
from models.candidate import Candidate, open_candidate
from models.graph import OPSET, needs_reduced_range, write_graphs
from models.measure import measure
from models.reference import Reference, ask_torch
from models.samples import Samples, read_samples
from models.source import WEIGHTS, Source, find_source
from models.steps import Steps
from models.tokenizer import write_tokenizer
from torpor.errors import BadRequest
from torpor.onnx import CARD, cpu_flags, fingerprint

if TYPE_CHECKING:
    from bentoml import Model

PRECISIONS = ("fp32", "int8")
BATCH = 4  # the gate's padded batches: short and long texts together
TOTAL_STEPS = 6


@dataclass(frozen=True)
class Order:
    """What is to be exported, as asked for."""

    source: str
    task: str
    precisions: tuple[str, ...]
    name: str
    samples: Path | None = None
    allow_worse: bool = False
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """The model in the store; `reused` when an earlier export had already put it there."""

    model: Model
    card: dict[str, Any]
    reused: bool


def export(order: Order, steps: Steps) -> Exported:
    """Exports, verifies and stores a model; blocks for half a minute and more.

    Raises ExportRefused when a graph strays too far from the original, ModelNotFound and BadRequest for a source,
    samples or names that cannot be used. On any exception the store is as it was before.
    """
    check(order)
    steps.begin(f"reading {order.source}")
    source, samples = find_source(order.source), read_samples(order.samples, ranking=order.task == "text-ranking")
    check_head(order.task, source)
    key = _key(order, source, samples)
    found = None if order.force else store.find(order.name, key)
    if found is not None and (order.allow_worse or not found.info.metadata["worse"]):
        store.make_latest(order.name, str(found.tag.version))
        return Exported(found, dict(found.info.metadata), reused=True)
    with store.scratch() as work:
        artifact = work / "artifact"
        artifact.mkdir()
        steps.begin(f"exporting to ONNX, {' and '.join(order.precisions)}")
        write_graphs(source, order.task, list(order.precisions), artifact, work)
        steps.begin("tokenizer")
        form = write_tokenizer(source, samples.single, artifact)
        card = _card(order, source, key, form)
        _write(artifact, card)
        steps.begin(f"asking PyTorch for {len(samples.texts)} samples")
        reference = ask_torch(source, order.task, samples.texts)
        steps.begin("asking each graph for the same")
        report, faults = judge(order, source, samples, reference, artifact)
        if not order.allow_worse:
            gate.refuse(order.name, order.task, faults, report)
        card |= {"report": report, "worse": sorted(name for name, broken in faults.items() if broken)}
        _write(artifact, card)
        steps.begin("storing")
        return Exported(store.keep(order.name, artifact, card, work), card, reused=False)


def check(order: Order) -> None:
    """Refuses an order that cannot be carried out, before anything is read. Raises BadRequest."""
    if order.task not in gate.TASKS:
        raise BadRequest(f"{order.task!r} is not a task that can be exported.\nUse {' or '.join(gate.TASKS)}.")
    unknown = [precision for precision in order.precisions if precision not in PRECISIONS]
    if unknown or not order.precisions:
        raise BadRequest(
            f"{', '.join(unknown) or 'none'} is not a precision that can be exported.\n"
            f"Use --precision with one or both of {','.join(PRECISIONS)}."
        )
    store.check_name(order.name)


def check_head(task: str, source: Source) -> None:
    """Refuses a source without the layer that the task needs. Raises BadRequest."""
    built = ", ".join(source.config.get("architectures") or ["no named class"])
    if task != "feature-extraction" and "ForSequenceClassification" not in built:
        raise BadRequest(
            f"{source.folder} is {built}: it has no trained classes or scores.\n"
            "Fine-tune it as AutoModelForSequenceClassification first, or use --task feature-extraction."
        )
    outputs = len(source.labels)
    if task == "text-ranking" and outputs != 1:
        raise BadRequest(
            f"{source.folder} has {outputs} outputs; a model that ranks has one, the score.\n"
            "Use --task text-classification, or a cross-encoder that was trained with num_labels=1."
        )
    if task == "text-classification" and outputs < 2:
        raise BadRequest(
            f"{source.folder} has one output, which is a score and no class.\n"
            "Use --task text-ranking for a cross-encoder, or train with one output a class."
        )


def judge(
    order: Order, source: Source, samples: Samples, reference: Reference, artifact: Path
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The report's rows, PyTorch's first, and the faults of each variant."""
    metric = gate.task_metric(order.task, reference.answers, samples, source.labels)
    weights = sum(store.size_of(path) for pattern in WEIGHTS for path in source.folder.glob(pattern))
    row: dict[str, Any] = {"variant": "pytorch", "latency_p50": round(reference.latency_p50, 5), "size": weights}
    rows = [row if metric is None else row | {"metric": round(metric, 6)}]
    faults: dict[str, list[str]] = {}
    for precision, portable in _variants(order.precisions):
        variant = f"{precision} portable" if portable else precision
        candidate = open_candidate(artifact, precision, portable=portable)
        metrics = _compare(order.task, candidate, source, samples, reference)
        faults[variant] = gate.faults(order.task, precision, metrics)
        row = {"variant": variant} | {name: float(f"{value:.6g}") for name, value in metrics.items()}
        row["size"] = store.size_of(artifact / ("portable" if portable else "tuned") / precision)
        if not portable:
            row |= measure(artifact, precision)
        rows.append(row | {"passed": not faults[variant], "faults": faults[variant]})
    return rows, faults


def _variants(precisions: tuple[str, ...]) -> list[tuple[str, bool]]:
    """The graphs to judge. The portable int8 one differs from the tuned one in range where this CPU allows more."""
    variants = [(precision, False) for precision in precisions]
    if "int8" in precisions and not needs_reduced_range(cpu_flags()):
        variants.append(("int8", True))
    return variants


def _compare(
    task: str, candidate: Candidate, source: Source, samples: Samples, reference: Reference
) -> dict[str, float]:
    texts = samples.texts
    singles = gate.stacked([candidate.answer([text]) for text in texts])
    batched = gate.stacked([candidate.answer(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])
    metrics = gate.compare(task, reference.answers, singles, batched, samples.queries)
    before = gate.task_metric(task, reference.answers, samples, source.labels)
    after = gate.task_metric(task, singles, samples, source.labels)
    if before is not None and after is not None:
        metrics |= {"metric": after, "metric_loss": before - after}
    return metrics


def _key(order: Order, source: Source, samples: Samples) -> dict[str, Any]:
    """What makes two exports the same: the first part of the card."""
    return {
        "digest": source.digest,
        "task": order.task,
        "precisions": list(order.precisions),
        "samples": samples.digest,
        "torpor": torpor.__version__,
        "fingerprint": fingerprint(),
    }


def _card(order: Order, source: Source, key: dict[str, Any], tokenizer: str) -> dict[str, Any]:
    return key | {
        "source": source.name,
        "license": source.license or "unknown",
        "opset": OPSET,
        "max_tokens": source.max_tokens,
        "pooling": source.pooling,
        "normalize": source.normalize,
        "dimension": source.config.get("hidden_size", 0),
        "labels": source.labels if order.task == "text-classification" else [],
        "activation": source.activation if order.task != "feature-extraction" else "identity",
        "tokenizer": tokenizer,
    }


def _write(artifact: Path, card: dict[str, Any]) -> None:
    """Writes the card that a session reads: JSON, because parsing the store's own YAML takes longer than opening."""
    part = artifact / f"{CARD}.part"
    part.write_text(json.dumps(card, indent=1), encoding="utf-8")
    os.replace(part, artifact / CARD)
