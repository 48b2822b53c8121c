"""Sessions: tuned for this machine or tuned anew, on the providers that were asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torpor.errors import ModelNotFound, ProviderMissing
from torpor.onnx import (
    CARD,
    GRAPH,
    Session,
    fingerprint,
    finish_hurried,
    forget_early,
    open_early,
    open_session,
    opened,
    read_card,
    rehearse,
)
from torpor.onnx.session import PACKING

FEED = {
    "input_ids": np.array([[2, 50, 60, 3]]),
    "attention_mask": np.ones((1, 4), dtype=np.int64),
    "token_type_ids": np.zeros((1, 4), dtype=np.int64),
}


def answer(session: Any) -> Any:
    return session.run(None, FEED)[0]


def move_elsewhere(artifact: Path) -> None:
    """As if the artifact came from another machine: its tuned graphs are of no use here."""
    card = read_card(artifact)
    card["fingerprint"] = "onnxruntime 1.0 plan9 pdp11"
    (artifact / CARD).write_text(json.dumps(card))
    for tuned in (artifact / "tuned").glob(f"*/{GRAPH}*"):
        tuned.write_bytes(b"not for this machine")


def test_the_artifacts_own_graph_is_opened_where_it_was_tuned(exported: Path) -> None:
    open_session(exported, "fp32")
    facts = opened()[-1]
    assert (facts["fingerprint_match"], facts["provider"], facts["threads"]) == (True, "CPUExecutionProvider", 1)
    assert read_card(exported)["fingerprint"] == fingerprint()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_elsewhere_the_portable_graph_is_tuned_anew_and_answers_alike(
    precision: str, exported: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_CACHE", str(tmp_path / "cache"))
    move_elsewhere(artifact)
    got = answer(open_session(artifact, precision))
    assert opened()[-1]["fingerprint_match"] is False
    np.testing.assert_allclose(
        got, answer(open_session(exported, precision)), atol=1e-5 if precision == "fp32" else 0.2
    )


def test_a_graph_is_tuned_anew_only_once(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_CACHE", str(tmp_path / "cache"))
    move_elsewhere(artifact)
    open_session(artifact, "fp32")
    (built,) = (tmp_path / "cache" / "graphs").glob(f"*/{GRAPH}")
    before = built.stat().st_ino
    open_session(artifact, "fp32")
    assert built.stat().st_ino == before


def test_what_a_killed_tuning_left_is_removed_by_the_next(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORPOR_CACHE", str(tmp_path / "cache"))
    move_elsewhere(artifact)
    open_session(artifact, "fp32")
    graphs = tmp_path / "cache" / "graphs"
    (built,) = graphs.glob(f"*/{GRAPH}")
    stale = graphs / f"{built.parent.name}.part-killed"
    built.parent.rename(stale)
    open_session(artifact, "fp32")
    assert built.exists()
    assert not stale.exists()


def test_a_wanted_provider_that_is_not_active_is_an_error(exported: Path) -> None:
    with pytest.raises(ProviderMissing, match=r"CUDAExecutionProvider is not active here; active: .*CPU") as caught:
        open_session(exported, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert len(caught.value.message.splitlines()) == 2


def test_a_declared_fallback_runs_on_the_cpu_and_says_so(exported: Path) -> None:
    session = open_session(exported, providers=["CUDAExecutionProvider"], fallback=True)
    assert answer(session).shape == (1, 4, 32)
    facts = opened()[-1]
    assert facts["wanted"] == ["CUDAExecutionProvider"]
    assert facts["provider"] == "CPUExecutionProvider"


def test_a_precision_that_was_not_exported_is_named(exported: Path) -> None:
    with pytest.raises(ModelNotFound, match="no fp16 graph, only fp32, int8"):
        open_session(exported, "fp16")


def test_a_folder_that_is_no_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="not a model that torpor exported"):
        open_session(tmp_path)


def test_importing_is_light_and_opening_starts_no_thread(exported: Path) -> None:
    code = f"""
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None); os.environ["OPENBLAS_NUM_THREADS"] = "1"
from torpor.onnx import open_session
from torpor.tokenizer import open_tokenizer
heavy = {{"onnxruntime", "numpy", "tokenizers"}} & set(sys.modules)
session = open_session({str(exported)!r}); open_tokenizer({str(exported)!r}, 16).encode("hello there")
print(sorted(heavy), len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=Path.cwd())
    assert done.stdout.strip() == "[] 1", done.stderr


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_session_opened_early_answers_alike_and_is_packed_behind_its_first_run(
    precision: str, exported: Path
) -> None:
    settled = open_session(exported, precision)
    open_early([settled.facts])
    hurried = open_session(exported, precision)
    quick = hurried._session
    np.testing.assert_allclose(answer(hurried), answer(settled), atol=1e-5)
    for thread in threading.enumerate():
        if thread.name == PACKING:
            thread.join()
    assert hurried._session is not quick
    assert hurried.finish() is None
    np.testing.assert_array_equal(answer(hurried), answer(settled))


def test_a_session_that_no_call_ran_is_packed_when_it_is_asked(exported: Path) -> None:
    open_early([open_session(exported).facts])
    hurried = open_session(exported)
    quick = hurried._session
    finish_hurried()
    for thread in threading.enumerate():
        if thread.name == PACKING:
            thread.join()
    assert hurried._session is not quick


def test_an_early_session_that_cannot_be_opened_fails_where_it_is_asked_for(exported: Path) -> None:
    open_early([open_session(exported).facts | {"precision": "fp16"}])
    with pytest.raises(ModelNotFound, match="no fp16 graph"):
        open_session(exported, "fp16")
    forget_early()


def test_a_session_whose_packed_form_cannot_be_opened_goes_on_answering(
    exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise OSError("the file is gone")

    whole = open_session(exported)
    session = Session(whole._session, whole.facts, broken)
    thread = session.finish()
    assert thread is not None
    thread.join()
    assert answer(session).shape == (1, 4, 32)
    assert "answers stay slower" in caplog.text


def test_a_rehearsal_runs_the_graph_and_changes_no_answer_and_starts_no_thread(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(exported)
    before = answer(session)
    rows: list[tuple[int, ...]] = []
    inner = session._session

    class Seen:
        def run(self, names: Any, feed: dict[str, Any]) -> Any:
            rows.append(feed["input_ids"].shape)
            return inner.run(names, feed)

        def get_inputs(self) -> Any:
            return inner.get_inputs()

    monkeypatch.setattr(session, "_session", Seen())
    running = threading.active_count()
    rehearse()
    assert rows == [(1, 16)]
    assert threading.active_count() == running
    monkeypatch.undo()
    np.testing.assert_array_equal(answer(session), before)


def test_a_graph_that_cannot_be_rehearsed_is_left_to_its_first_caller(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(exported)
    monkeypatch.setattr("torpor.onnx.session.TYPES", {})
    with pytest.raises(KeyError):
        session.rehearse()
    rehearse()
    assert answer(session).shape[0] == 1
