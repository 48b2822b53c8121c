"""The router's own log: its lines, how long it grows, and who is too loud in it."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
FILE_MAX = 16 << 20  # bytes; then it becomes `<file>.1`, and what that was is gone
TOLD = ("endpoint", "event", "replica", "seconds")  # what a line may say beside its text: of a transition
LOUD = ("uvicorn", "alembic")  # at `info` they tell of every start what nobody asks


def configure(level: str, file: Path | None, form: str = "text") -> None:
    """Once a process. `file`: a bounded one takes the log; None: standard error does. `form`: text or json."""
    handler = Bounded(file) if file is not None else logging.StreamHandler()
    handler.setFormatter(AsJson() if form == "json" else logging.Formatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        for name in LOUD:
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class AsJson(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and where there are any the keys of TOLD and the fault."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key in TOLD if (value := getattr(record, key, None)) is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)


class Bounded(RotatingFileHandler):
    """Takes standard output and error along: what a library or the interpreter prints is in the log too."""

    def __init__(self, file: Path, file_max: int = FILE_MAX) -> None:
        super().__init__(file, maxBytes=file_max, backupCount=1, encoding="utf-8")
        self._take_along()

    def doRollover(self) -> None:
        super().doRollover()
        self._take_along()

    def _take_along(self) -> None:
        assert self.stream is not None  # it is opened at once, and not at the first line
        for descriptor in (1, 2):
            os.dup2(self.stream.fileno(), descriptor)
