"""Shell completion: the script that a shell loads, and endpoints' names from the platform that runs."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

ANSWER_WITHIN = 1.0  # seconds that somebody at a prompt is made to wait


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script: source <(torpor completion bash)."""
    from torpor.cli.commands import cli

    made = get_completion_class(shell)
    assert made is not None
    print(made(cli, {}, "torpor", "_TORPOR_COMPLETE").source())


def names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The endpoints' names that begin so; none where no platform answers in time."""
    from torpor.client import Client
    from torpor.errors import TorporError

    root = ctx.find_root()
    try:
        with Client(root.params.get("url"), verify=root.params.get("cacert"), answer_within=ANSWER_WITHIN) as platform:
            views = platform.list()
    except TorporError:
        return []
    return [CompletionItem(view["name"], help=view["state"]) for view in views if view["name"].startswith(incomplete)]
