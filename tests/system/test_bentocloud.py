"""BentoCloud's API, by the stock bentoml command line: the whole conformance script, with the store at both homes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.shell.s3 import BUCKET, s3_server
from tests.system import conformance
from tests.system.running import REPOSITORY, running

NAMES = [check.__name__.removeprefix("check_") for check in conformance.CHECKS]
WITHIN = 900.0  # seconds


def run(url: str, token: str) -> str:
    """What the script prints."""
    command = [sys.executable, "-m", "tests.system.conformance", url, token]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def whole(folder: Path, *flags: str) -> None:
    with running(folder, *flags) as platform:
        token = platform.told("tokens", "create", "ci", "--scope", "admin").split()[-1]
        said = run(platform.url, token)
    for name in NAMES:
        assert f"ok   {name} " in said


def test_the_stock_command_line_deploys_with_the_store_in_a_folder(tmp_path: Path) -> None:
    whole(tmp_path)


def test_the_stock_command_line_deploys_with_the_store_in_s3(tmp_path: Path) -> None:
    with s3_server() as server:
        config = tmp_path / "torpor.toml"
        config.write_text(f'store = "s3://{BUCKET}/team"\nstore_endpoint = "{server.endpoint}"\n')
        whole(tmp_path, "--config", str(config))
        assert server.names(), "nothing was kept there"
