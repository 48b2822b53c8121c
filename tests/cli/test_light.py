"""What the SDK and the command line load before they are asked to do something."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"alembic", "bentoml", "httpx", "numpy", "onnxruntime", "rich", "sqlalchemy", "starlette", "torch", "uvicorn"}

HELP = """
import sys
from torpor.cli import main
sys.argv = ["torpor", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize("program", ["import torpor; torpor.__version__", "from torpor import errors", HELP])
def test_nothing_heavy_is_loaded(program: str) -> None:
    program += "\nimport json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert "torpor" in loaded
    assert loaded & HEAVY == set()


def test_the_public_names_load_on_first_use() -> None:
    import torpor

    for name in torpor.__all__:
        assert getattr(torpor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        torpor.Nothing  # noqa: B018 - it is the attribute's access that raises
