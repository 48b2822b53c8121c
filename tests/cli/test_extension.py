"""`bentoml torpor ...`: the same commands, and nothing loaded for those who do not call them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from tests.system.running import WITHIN, Running

BENTOML = str(Path(sys.executable).with_name("bentoml"))


def bentoml(platform: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BENTOML, *arguments], env=platform.env, capture_output=True, text=True, timeout=WITHIN)


def test_bentomls_command_line_has_torpors_commands_and_their_exit_codes(platform: Running) -> None:
    assert "torpor" in bentoml(platform, "--help").stdout
    listed = bentoml(platform, "torpor", "ls", "--json")
    assert (listed.returncode, [view["name"] for view in json.loads(listed.stdout)]) == (0, ["deployed"])
    assert "Start the platform." in bentoml(platform, "torpor", "up", "--help").stdout
    missing = bentoml(platform, "torpor", "show", "nosuch")
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (3, "no endpoint is called 'nosuch'")
    assert bentoml(platform, "torpor", "--url", "http://127.0.0.1:9", "ls").returncode == 6


def test_the_entry_point_loads_no_command() -> None:
    (found,) = entry_points(group="bentoml.commands", name="torpor")
    module = found.value.partition(":")[0]
    program = (
        f"import sys, click; before = set(sys.modules); import {module}; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert module in loaded
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "torpor",
        "torpor.cli",
        module,
    }
