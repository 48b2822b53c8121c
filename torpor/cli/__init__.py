"""The command line: parse, call the SDK, print."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as a shell reports a command that Ctrl-C ended


def main() -> None:
    """`torpor`."""
    try:
        from torpor.cli.commands import cli

        cli()
    except KeyboardInterrupt:  # before there was a command that could hear it
        sys.exit(INTERRUPTED)
