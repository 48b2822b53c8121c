"""The command line: parse, call the SDK, print."""

from __future__ import annotations


def main() -> None:
    """`torpor`."""
    from torpor.cli.commands import run

    run()
