"""`torpor doctor` beside a real engine."""

from __future__ import annotations

import re
from pathlib import Path

from tests.containers.engine import asked
from torpor.cli import checks
from torpor.cli.checks import OK


def test_the_engine_that_answers_is_told_with_its_version_and_its_socket(engine: Path) -> None:
    found = checks.containers(str(engine), wanted=True)
    version = asked(engine, "GET", "/version").json()["Version"]
    assert (found.name, found.state, found.remedy) == ("containers", OK, "")
    assert re.fullmatch(rf"(podman|docker) {re.escape(version)} at {re.escape(str(engine))}(, rootless)?", found.says)
