"""The router's own log is bounded, holds what is printed beside it, and is not filled by others."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOUD = """
import logging, os, sys
from pathlib import Path
from router import log
log.Bounded.__init__.__defaults__ = (20_000,)
log.configure(sys.argv[2], Path(sys.argv[1]))
for number in range(1000):
    logging.getLogger("torpor.engine").info("line %d of the router", number)
    os.write(2, b"printed %d\\n" % number)
logging.getLogger("uvicorn.error").info("Started server process")
logging.getLogger("alembic.runtime.migration").info("Context impl SQLiteImpl.")
logging.getLogger("uvicorn.error").error("a fault of the control plane")
"""


def run(folder: Path, level: str = "info") -> tuple[str, str]:
    """The log and the one before it."""
    path = folder / "router.log"
    command = [sys.executable, "-c", LOUD, str(path), level]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    return path.read_text(), (folder / "router.log.1").read_text()


def test_the_log_is_bounded_and_holds_what_is_printed_beside_it(tmp_path: Path) -> None:
    newest, before = run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["router.log", "router.log.1"]
    assert 0 < len(newest) <= 21_000
    assert 10_000 < len(before) <= 21_000
    assert "line 999 of the router" in newest
    assert "printed 999" in newest, "standard error has moved to the new file"
    lines = [line for line in (before + newest).splitlines() if line.startswith("printed")]
    assert lines == [f"printed {number}" for number in range(1000 - len(lines), 1000)]


def test_info_of_others_is_left_out_their_faults_and_debugging_are_not(tmp_path: Path) -> None:
    newest, _ = run(tmp_path)
    assert "a fault of the control plane" in newest
    assert "Started server" not in newest
    assert "SQLiteImpl" not in newest
    newest, _ = run(tmp_path, "debug")
    assert "Started server" in newest
    assert "SQLiteImpl" in newest


JSON = """
import logging, sys
from pathlib import Path
from router import log
log.configure("info", Path(sys.argv[1]) if len(sys.argv) > 1 else None, "json")
told = {"endpoint": "e", "event": "woke", "replica": "e-1-a", "seconds": 0.25}
logging.getLogger("torpor.router").info("endpoint %s: two\\nlines, \\u00e9 \\"quoted\\"", "e", extra=told)
logging.getLogger("torpor.api").warning("plain")
try:
    raise ValueError("bad\\nvalue")
except ValueError:
    logging.getLogger("uvicorn.error").exception("failed")
"""


@pytest.mark.parametrize("to_file", [True, False])
def test_a_json_log_is_one_object_a_line_whatever_is_in_it(tmp_path: Path, to_file: bool) -> None:
    path = tmp_path / "router.log"
    command = [sys.executable, "-c", JSON, *([str(path)] if to_file else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told, plain, failed = map(json.loads, (path.read_text() if to_file else done.stderr).splitlines())
    assert datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told == {
        "level": "info",
        "logger": "torpor.router",
        "message": 'endpoint e: two\nlines, \u00e9 "quoted"',
        "endpoint": "e",
        "event": "woke",
        "replica": "e-1-a",
        "seconds": 0.25,
    }
    assert set(plain) == {"time", "level", "logger", "message"}
    assert (failed["logger"], failed["level"]) == ("uvicorn.error", "error")
    assert failed["exception"].endswith("ValueError: bad\nvalue")
