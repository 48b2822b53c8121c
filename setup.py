"""The wheel carries the application (what `torpor up` and `torpor export` run) as data, in `torpor/_app/`.

All else is in pyproject.toml. An editable install carries nothing: it runs the application from the checkout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

APPLICATION = ("router", "models", "services")


class BuildWithApplication(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "torpor", "_app")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for folder in APPLICATION:
            shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


setup(cmdclass={"build_py": BuildWithApplication})
