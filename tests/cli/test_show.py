"""What the commands print of a replica's memory."""

from __future__ import annotations

import pytest

from torpor.cli import show
from torpor.wire import ReplicaView

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cards", "gpu_memory", "printed"),
    [
        ([], None, "7.0 MiB"),
        (["GPU-a"], 0, "7.0 MiB and 0.0 MiB on GPU-a"),
        (["GPU-a", "GPU-b"], 96 * MIB, "7.0 MiB and 96.0 MiB on GPU-a, GPU-b"),
    ],
)
def test_a_replica_is_shown_with_what_it_has_on_its_cards(
    cards: list[str], gpu_memory: int | None, printed: str
) -> None:
    replica = ReplicaView(
        id="e-1-a",
        state="ready",
        pid=7,
        in_flight=0,
        memory=7 * MIB,
        cards=cards,
        gpu_memory=gpu_memory,
        phases={},
        since=0.0,
    )
    assert show.taken(replica) == printed
