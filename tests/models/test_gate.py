"""The gate: a graph that strays is refused, by the metric that shows it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from models import export as exporting
from models import gate, store
from models.export import Order, export
from models.reference import ask_torch
from models.samples import BUILT_IN, Samples, read_samples
from models.source import find_source
from models.steps import Steps
from torpor.errors import BadRequest, ExportRefused
from torpor.onnx import GRAPH, tune

QUIET = Steps(6, "none")


def test_a_faithful_graph_passes_and_the_report_has_every_figure(exported: Path) -> None:
    report = json.loads((exported / "card.json").read_text())["report"]
    assert [row["variant"] for row in report][:3] == ["pytorch", "fp32", "int8"]
    assert report[1]["passed"] is True
    for figure in ("max_abs_error", "cosine_mean", "ranking", "latency_p50", "size", "memory"):
        assert figure in report[1]
    assert report[1]["max_abs_error"] < 1e-4


def test_a_damaged_graph_is_refused(tiny: Path, artifact: Path) -> None:
    damage(artifact)
    order = Order(str(tiny), "feature-extraction", ("fp32",), "tiny")
    source, samples = find_source(str(tiny)), Samples(BUILT_IN[:12])
    reference = ask_torch(source, order.task, samples.texts)
    report, faults = exporting.judge(order, source, samples, reference, artifact)
    with pytest.raises(ExportRefused, match=r"fp32: cosine_mean 0\.\d+ is below 0\.9999") as caught:
        gate.refuse(order.name, order.task, faults, report)
    assert "--allow-worse" in caught.value.message.splitlines()[1]


def damage(artifact: Path) -> None:
    """Turns one layer's weights around, as a faulty operator or exporter would; shapes and names stay."""
    import onnx
    from onnx import numpy_helper

    path = artifact / "portable" / "fp32" / GRAPH
    model = onnx.load(path)
    weights = next(each for each in model.graph.initializer if len(each.dims) == 2 and min(each.dims) >= 32)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[::-1].copy(), weights.name))
    onnx.save(model, path)
    shutil.rmtree(artifact / "tuned" / "fp32")
    tune(path, artifact / "tuned" / "fp32")


def test_a_refused_export_stores_nothing_unless_worse_is_allowed(
    tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.BOUNDS, ("feature-extraction", "int8"), (gate.Bound("cosine_mean", 0.99999999),))
    order = Order(str(tiny), "feature-extraction", ("int8",), "tiny")
    with pytest.raises(ExportRefused, match="int8: cosine_mean"):
        export(order, QUIET)
    assert not list((home / "models").iterdir())
    assert not list((home / "tmp").glob("*/"))
    kept = export(Order(str(tiny), "feature-extraction", ("int8",), "tiny", allow_worse=True), QUIET)
    assert kept.card["worse"] == ["int8"] or kept.card["worse"] == ["int8", "int8 portable"]
    with pytest.raises(ExportRefused):  # what was kept by permission is not reused without it
        export(order, QUIET)
    assert len(list((home / "models" / "tiny").glob("*/"))) == 1


def test_a_classifier_is_judged_by_its_classes_and_its_labels(tmp_path: Path, home: Path) -> None:
    from tests.models.tiny import make_tiny

    folder = make_tiny(tmp_path / "classifier", classes=3)
    rows = [{"text": text, "label": f"LABEL_{number % 3}"} for number, text in enumerate(BUILT_IN[:9])]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    order = Order(str(folder), "text-classification", ("fp32",), "judge", samples=tmp_path / "samples.jsonl")
    card = export(order, QUIET).card
    assert card["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    original, graph = card["report"]
    assert graph["agreement"] == 1.0
    assert graph["metric"] == original["metric"]
    assert 0 <= graph["metric"] <= 1
    assert store.find("judge", {"task": "text-classification"}) is not None


@pytest.mark.parametrize(
    ("task", "classes", "message"),
    [
        ("text-classification", 0, "no trained classes"),
        ("text-ranking", 0, "no trained classes"),
        ("text-classification", 1, "one output, which is a score"),
        ("text-ranking", 2, "2 outputs; a model that ranks has one"),
    ],
)
def test_a_source_without_the_tasks_layer_is_refused_at_once(
    task: str, classes: int, message: str, tmp_path: Path, home: Path
) -> None:
    from tests.models.tiny import make_tiny

    folder = make_tiny(tmp_path / "source", classes=classes)
    with pytest.raises(BadRequest, match=message):
        export(Order(str(folder), task, ("fp32",), "headless"), QUIET)


@pytest.mark.parametrize(
    ("task", "gone"), [("text-classification", "classifier."), ("feature-extraction", "encoder.layer.1.")]
)
def test_a_source_without_the_weights_of_its_task_is_refused_whatever_is_allowed(
    task: str, gone: str, tmp_path: Path, home: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    from tests.models.tiny import make_tiny

    folder = make_tiny(tmp_path / "source", classes=2 if task == "text-classification" else 0)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if not name.startswith(gone)}, folder / "model.safetensors"
    )
    with pytest.raises(BadRequest, match=f"no weights for {gone}.*would be random"):
        export(Order(str(folder), task, ("fp32",), "headless", allow_worse=True), QUIET)
    assert not list((home / "models").iterdir())


def test_a_refusal_shows_the_parity_table(tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.__main__ import main

    monkeypatch.setitem(gate.BOUNDS, ("feature-extraction", "fp32"), (gate.Bound("cosine_mean", 2),))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        arguments = [str(tiny), "--name", "tiny", "--precision", "fp32", "--progress", "none"]
        told = CliRunner().invoke(main, arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (told.exit_code, told.stdout) == (3, "")
    *table, what, _ = told.stderr.splitlines()
    assert table[0].split() == ["variant", "pytorch", "fp32"]
    assert table[-1].split() == ["gate", "-", "below"]
    assert what.startswith("tiny is refused: fp32: cosine_mean")


def test_the_first_document_may_be_another_that_is_as_good() -> None:
    wanted = np.array([9, 8.95, 1, 0, 5], dtype=np.float32)
    queries = ["a", "a", "a", "b", "b"]
    assert gate.same_first(wanted, np.array([1, 2, 0, 0, 1], dtype=np.float32), queries) == 1
    assert gate.same_first(wanted, np.array([1, 0, 2, 0, 1], dtype=np.float32), queries) == 0.5


def test_a_model_that_ranks_is_sampled_with_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"text": "a", "text2": "b", "score": 1}\n{"text": "a", "text2": "c", "score": 0}\n')
    samples = read_samples(path, ranking=True)
    assert samples.texts[-2:] == (("a", "b"), ("a", "c"))
    assert samples.queries[-1] == "a"
    logits = np.zeros((len(samples.texts), 1), dtype=np.float32)
    logits[-2:, 0] = (3, -3)
    assert gate.task_metric("text-ranking", logits, samples, []) == pytest.approx(1)
    path.write_text('{"text": "a"}')
    with pytest.raises(BadRequest, match="sample 1 is one text"):
        read_samples(path, ranking=True)


def test_not_a_number_fails_every_bound() -> None:
    nan = {bound.metric: float("nan") for bounds in gate.BOUNDS.values() for bound in bounds}
    for (task, precision), bounds in gate.BOUNDS.items():
        assert len(gate.faults(task, precision, nan)) == len(bounds)


def test_rank_correlation_shares_the_ranks_of_equal_values() -> None:
    assert gate.spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0])) == pytest.approx(1)
    assert gate.spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    # scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4]) = 0.9486832980505138
    assert gate.spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.9486832980505138)


def test_pairs_with_a_score_become_the_task_metric(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"text": "a", "text2": "b", "score": 1}\n{"text": "c", "text2": "d", "score": 0}\n')
    samples = read_samples(path)
    vectors = np.ones((len(samples.texts), 2), dtype=np.float32)
    vectors[-1] = (1, -1)
    assert gate.task_metric("feature-extraction", vectors, samples, []) == pytest.approx(1)


@pytest.mark.parametrize("line", ['{"label": 1}', "not json", '{"text": "a", "text2": "b"}', '{"text": 3}', "[1]"])
def test_a_faulty_sample_is_named_by_its_number(line: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"text": "fine"}\n' + line)
    with pytest.raises(BadRequest, match="sample 2 is not a sample"):
        read_samples(tmp_path / "s.jsonl")
