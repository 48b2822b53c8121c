"""The graphs of an artifact: exported through optimum, quantised for the CPU at hand, tuned by the runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from models.source import Source
from torpor.onnx import GRAPH, cpu_flags, tune

OPSET = 17  # the last one whose LayerNormalization every runtime since 1.13 runs natively
WIDE_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def export_graph(source: Source, task: str, folder: Path) -> Path:
    """PyTorch -> ONNX, unquantised. Returns the graph's path; other files of the export are dropped."""
    from optimum.exporters.onnx import main_export

    with quiet():
        main_export(
            str(source.folder),
            output=folder,
            task="feature-extraction" if task == "feature-extraction" else "text-classification",
            opset=OPSET,
            do_validation=False,  # the gate does it, on real texts
            library_name="transformers",  # pooling stays in the service, where the reader sees it
            local_files_only=True,
        )
    for path in folder.iterdir():
        if not path.name.startswith(GRAPH):
            path.unlink()
    return folder / GRAPH


def quantise(graph: Path, out: Path, *, reduce_range: bool) -> None:
    """Dynamic int8, per channel: per tensor, the default, loses a fifth of the nearest neighbours of MiniLM.

    `reduce_range` keeps weights to 7 bits: without dot-product instructions, x86 adds pairs of products in 16 bits,
    which saturate at 8 (onnxruntime's quantisation guide).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out.parent.mkdir(parents=True)
    with quiet():
        quantize_dynamic(graph, out, weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range)


def needs_reduced_range(flags: frozenset[str]) -> bool:
    """True where int8 products are summed in 16 bits: x86 without VNNI or AMX. arm64 sums them in 32."""
    return not flags & (WIDE_DOT_PRODUCTS | {"asimd"})


def write_graphs(source: Source, task: str, precisions: list[str], folder: Path, work: Path) -> None:
    """Fills portable/ and tuned/ of an artifact for `precisions` (fp32, int8); `work` is an existing scratch folder."""
    exported = export_graph(source, task, work / "exported")
    for precision in precisions:
        portable = folder / "portable" / precision / GRAPH
        to_tune = portable
        if precision == "int8":
            quantise(exported, portable, reduce_range=True)  # right on every CPU, if a little less exact
            if not needs_reduced_range(cpu_flags()):
                to_tune = work / "full-range" / GRAPH
                quantise(exported, to_tune, reduce_range=False)
        else:
            portable.parent.mkdir(parents=True)
            for path in exported.parent.iterdir():
                (portable.parent / path.name).hardlink_to(path)
        tune(to_tune, folder / "tuned" / precision)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporters' warnings and prints off the screen: what matters comes back as an exception."""
    noisy = [logging.getLogger(name) for name in ("root", "transformers", "optimum", "torch.onnx")]
    levels = [logger.level for logger in noisy]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)
