"""What `torpor show` says of an endpoint's rung: what is there, since when, why, and what comes next."""

from __future__ import annotations

from typing import Any

import pytest

from router.api.rungs import Rungs
from router.core import events as ev
from router.core.settings import Settings
from tests.core.play import Play, kept, starts
from torpor.wire import RungView

MB = 1 << 20
EPOCH = 1_000_000.0


class Ladder(Play):
    """One endpoint, whose rung is asked for."""

    def __init__(self, memory: int | None = None, **settings: Any) -> None:
        super().__init__(memory)
        self.settings = Settings(**{"idle_after": 30, **settings})
        self.tell(ev.Deployed("e", 1, self.settings, 20 * MB))

    def rung(self, terminated: bool = False) -> RungView:
        return Rungs(self.schedule, EPOCH).of("e", self.settings, terminated, self.now)

    def says(self) -> tuple[str, str, str]:
        found = self.rung()
        return found["name"], found["why"], found["next"]

    def since(self) -> float | None:
        since = self.rung()["since"]
        return None if since is None else since - EPOCH - self.now

    def asleep(self) -> str:
        """Wakes it, lets it fall asleep by idleness; the replica that has ended."""
        replica = self.awake()
        self.tell(ev.Measured({replica: 61 * MB}))
        self.later(30)
        self.tell(ev.Exited(replica, 0))
        return replica


def test_before_its_first_call_an_endpoint_is_at_the_bottom_and_says_why() -> None:
    at_all = Ladder()
    assert at_all.says() == (
        "stop",
        "nothing was kept of it since the router has started",
        "a call starts a replica from nothing",
    )
    assert (at_all.since(), at_all.rung()["ladder"]) == (None, ["warm", "template", "stop"])


def test_a_start_runs_for_who_waits_and_a_replica_for_its_calls() -> None:
    play = Ladder()
    [replica] = starts(play.want("a") + play.want("b"))
    play.later(2)
    assert play.says() == ("warm", "a replica starts; 2 calls waiting for it", "calls are answered when it is ready")
    assert play.since() == -2
    play.tell(ev.Ready(replica))
    play.later(5)
    assert play.says() == (
        "warm",
        "it runs 2 calls and 0 background tasks",
        "it falls to `template` 30 s after its last call",
    )
    assert play.since() == -5


def test_an_idle_one_says_when_it_falls_and_to_what() -> None:
    play = Ladder(memory=100 * MB, sleep="pause", launcher="container")
    play.awake()
    play.later(12)
    assert play.says() == (
        "warm",
        "it ran its last call 12 s ago",
        "it falls to `pause` in 18 s without a call, or when its memory is needed",
    )
    assert Ladder(sleep="deep").rung()["ladder"] == ["warm", "stop"]


def test_one_that_is_kept_awake_says_so() -> None:
    play = Ladder(min_replicas=1)
    play.tell(ev.Ready(starts(play.effects)[0]))
    assert play.rung()["next"] == "it stays awake: min_replicas = 1"


def test_a_frozen_one_says_what_it_takes_and_when_it_stops() -> None:
    play = Ladder(memory=500 * MB, sleep="pause", launcher="container", keep_for=3600)
    replica = play.awake()
    play.tell(ev.Measured({replica: 61 * MB}))
    play.later(30 + 60)
    assert play.says() == (
        "pause",
        "its replica was frozen, 30 s after its last call; it takes 61 MiB",
        "it stops in 3,540 s, or when its memory is needed",
    )
    assert (play.since(), play.rung()["ladder"]) == (-60, ["warm", "pause", "stop"])
    play.want("a")
    assert play.rung()["why"] == "a replica is resumed; 1 call waiting for it"


@pytest.mark.parametrize(
    ("launcher", "name", "is_kept"),
    [
        ("process", "template", "a process with its service loaded is kept, to fork from; it takes 22 MiB"),
        ("container", "fork", "its container is kept with its imports done, to fork in; it takes 22 MiB"),
    ],
)
def test_a_kept_one_says_when_it_goes(launcher: str, name: str, is_kept: str) -> None:
    play = Ladder(memory=500 * MB, launcher=launcher, keep_for=3600)
    play.asleep()
    assert play.says() == ("stop", f"its {name} is being loaded", "a call forks from it once it is loaded")
    play.later(2)
    play.tell(ev.Kept(kept(play.effects)[0], 22 * MB))
    play.later(600)
    assert play.says() == (name, is_kept, "it goes in 3,000 s, or when its memory is needed")
    assert (play.since(), play.rung()["ladder"]) == (-600, ["warm", name, "stop"])


@pytest.mark.parametrize(
    ("memory", "keep_for", "then"),
    [
        (500 * MB, 0, "it goes when its memory is needed"),
        (None, 0, "it stays until it is needed"),
        (None, 60, "it goes in 60 s"),
    ],
)
def test_what_has_no_bound_says_so(memory: int | None, keep_for: float, then: str) -> None:
    play = Ladder(memory, keep_for=keep_for)
    play.asleep()
    play.tell(ev.Kept(kept(play.effects)[0], 22 * MB))
    assert play.rung()["next"] == then


def test_one_that_keeps_nothing_says_why() -> None:
    deep = Ladder(sleep="deep")
    deep.asleep()
    deep.later(10)
    assert (deep.rung()["why"], deep.since()) == ('sleep = "deep" keeps nothing of it', -10)

    cannot = Ladder()
    cannot.asleep()
    cannot.tell(ev.Unkept(kept(cannot.effects)[0], "it runs 3 threads"))
    assert cannot.rung()["why"] == "it can keep no template: it runs 3 threads"
    cannot.awake()
    assert cannot.rung()["next"] == "it falls to `stop` in 30 s without a call"

    lost = Ladder()
    lost.asleep()
    [template] = kept(lost.effects)
    lost.tell(ev.Kept(template, 22 * MB))
    lost.tell(ev.Unkept(template))
    assert lost.rung()["why"] == "its template died"

    unused = Ladder(sleep="pause", launcher="container", keep_for=60)
    replica = unused.awake()
    unused.later(30 + 60)
    unused.tell(ev.Exited(replica, -9))
    unused.later(5)
    assert unused.rung()["why"] == "its frozen replica went: it was not needed for keep_for"
    assert unused.since() == -5

    failed = Ladder()
    [start] = starts(failed.want("a"))
    failed.tell(ev.Failed(start, "no weights"))
    failed.tell(ev.Exited(start, 1))
    assert failed.rung()["why"] == "its last start failed: see its last error"


def test_one_that_is_off_the_air_says_what_puts_it_back() -> None:
    play = Ladder()
    play.tell(ev.Removed("e"))
    found = play.rung(terminated=True)
    assert (found["name"], found["why"], found["next"]) == (
        "stop",
        "it is terminated",
        "`torpor start e` puts it back",
    )
