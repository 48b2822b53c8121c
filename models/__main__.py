"""The command line of an export: `python -m models SOURCE --task feature-extraction --name minilm`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import click

from models.gate import TASKS
from models.steps import KINDS
from torpor.cli.exits import exit_code
from torpor.errors import TorporError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source")
@click.option("--task", default=TASKS[0], show_default=True, help=f"One of {', '.join(TASKS)}.")
@click.option("--precision", default="fp32,int8", show_default=True, help="Comma-separated: fp32, int8.")
@click.option("--name", required=True, help="Name in the model store.")
@click.option("--samples", type=click.Path(path_type=Path), help="More texts for the gate: .txt or .jsonl.")
@click.option("--allow-worse", is_flag=True, help="Keep a graph below the gate's bounds; the card says so.")
@click.option("--force", is_flag=True, help="Export again although the same export is in the store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--progress", type=click.Choice(KINDS), default="lines", show_default=True, help="On stderr.")
def main(
    source: str,
    task: str,
    precision: str,
    name: str,
    samples: Path | None,
    as_json: bool,
    progress: str,
    **switches: bool,
) -> None:
    """Exports SOURCE (a local Hugging Face folder, a hub id, or a recipe: minilm) to ONNX, into BentoML's model store.

    Each graph has to agree with PyTorch on sample texts, or the export is refused.
    """
    # As exceptions: the scratch folder goes at once and not with the next export.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _: sys.exit(128 + which))
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if Path(source).is_dir() or source == "minilm":
        os.environ["HF_HUB_OFFLINE"] = "1"  # everything is here: no library may ask a hub all the same
    from models.export import TOTAL_STEPS, Order, export
    from models.report import print_report, print_table
    from models.steps import Steps

    wanted = tuple(dict.fromkeys(each.strip() for each in precision.split(",") if each.strip()))
    order = Order(source, task, wanted, name, samples, **switches)
    try:
        exported = export(order, Steps(TOTAL_STEPS, progress))
    except TorporError as error:
        if as_json:
            print(json.dumps(error.body()))
        else:
            if "report" in error.detail:
                print_table(error.detail["report"], sys.stderr)
            print(error.message, file=sys.stderr)
        sys.exit(exit_code(error))
    if as_json:
        found = {"tag": str(exported.model.tag), "path": exported.model.path, "reused": exported.reused}
        print(json.dumps(found | {"card": exported.card}))
    else:
        print_report(exported)


if __name__ == "__main__":
    main(prog_name="torpor export")
