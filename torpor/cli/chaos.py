"""`torpor chaos`: breaks a platform of its own on purpose, and says what was lost."""

from __future__ import annotations

import click

from torpor.cli import show
from torpor.cli.group import AS_JSON


def seconds(ctx: click.Context, parameter: click.Parameter, text: str) -> float:
    """60, 60s, 2m."""
    try:
        number = float(text.rstrip("sm")) * (60 if text.endswith("m") else 1)
    except ValueError:
        number = 0.0
    if not 1 <= number <= 86400:
        raise click.BadParameter(f"{text!r} is no time from 1 s to a day; give for example 60s")
    return number


@click.command()
@click.option("--for", "within", default="60s", show_default=True, callback=seconds, help="How long: 60s, 5m.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed, the same faults in turn.")
@AS_JSON
@click.pass_context
def chaos(ctx: click.Context, within: float, seed: int, as_json: bool) -> None:
    """Break a platform of its own on purpose; exit 1 if anything was lost.

    Replicas, templates, fork-servers and the platform itself are killed, replicas garble, hang up, leak, raise and
    ignore signals, while callers call. Lost is a call without an answer in time, a wrong answer, an error that no
    fault explains, an endpoint, a process that belongs to nothing, a lease or a descriptor.
    """
    from torpor.chaos.run import run

    told = run(within, seed, (lambda line: None) if as_json else print)
    if as_json:
        show.as_json(told)
    else:
        print(f"{told['calls']} calls, {told['explained']} ended by a fault; {told['faults']} faults (seed {seed})")
        print("lost: " + ("nothing" if not told["lost"] else ""))
        for each in told["lost"]:
            print(f"  {each}")
    ctx.exit(1 if told["lost"] else 0)
