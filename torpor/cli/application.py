"""`python -P -m torpor.cli.application PART ...` becomes a part of the application, such as `router`.

Its folder is put on the path of this process only: no child (a replica with a user's own `models/`) inherits it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from torpor.cli import INTERRUPTED

EXTRAS = {"models": "export"}  # what a part needs beside torpor; else `platform`


def home() -> Path:
    """The folder that holds the application: inside of an installed wheel, or the checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "_app" if (package / "_app").is_dir() else package.parent


def main() -> None:
    folder, part = str(home()), sys.argv[1]
    sys.argv[:2] = [part]
    sys.path.insert(0, folder)
    try:
        runpy.run_module(part, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # before the part listens for it
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("torpor", "router", "models", "services"):
            raise  # a defect of ours, and not a missing package
        print(f"{part} needs the package {error.name}, which is not installed", file=sys.stderr)
        print(f"install it: pip install 'torpor[{EXTRAS.get(part, 'platform')}]'", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
