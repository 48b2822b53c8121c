"""The bench of containers: what it takes for a floor, for rest and for a failure; and that it leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

import pytest

from bench.containers import FORK, against, middle
from bench.crowd import MEMORY, SLEEPS, Seen, rows, total
from bench.engine import Engine
from bench.floors import Floor, Floors
from bench.rungs import Wake, at_rest, wait
from router.launch.container.spec import ENDPOINT, PLATFORM
from torpor.wire import EndpointView

ROOT = Path(__file__).parent.parent.parent

SERVICE = """
class Vectors(list):
    def tolist(self):
        return list(self)

class Embedding:
    @classmethod
    def inner(cls):
        return cls()

    def embed(self, texts):
        return Vectors(float(len(text)) for text in texts)
"""


def view(state: str, replicas: tuple[str, ...] = (), template: str | None = None) -> EndpointView:
    told = {"state": state, "replicas": [{"state": each} for each in replicas]}
    return cast(EndpointView, {**told, "template": {"state": template} if template else None})


@pytest.mark.parametrize(
    ("rung", "seen", "rests"),
    [
        ("stop", view("asleep"), True),
        ("stop", view("falling asleep", ("stopping",)), False),
        ("stop", view("asleep", template="kept"), False),
        ("fork", view("asleep", template="kept"), True),
        ("fork", view("asleep", template="loading"), False),
        ("fork", view("asleep"), False),
        ("pause", view("asleep", ("paused",)), True),
        ("pause", view("asleep"), False),
        ("pause", view("awake", ("ready",)), False),
        ("process", view("asleep"), True),
    ],
)
def test_an_endpoint_is_at_rest_when_nothing_else_is_there_than_its_rung_keeps(
    rung: str, seen: EndpointView, rests: bool
) -> None:
    assert at_rest(seen, rung) is rests


def test_a_rung_is_met_up_to_so_many_times_its_peer() -> None:
    assert against("fork", Wake(0.149, ""), 0.1, FORK).met
    assert not against("fork", Wake(0.151, ""), 0.1, FORK).met


def test_the_middle_is_one_that_was_measured() -> None:
    seen = [Floor(took, {"create": took / 2}) for took in (3.0, 1.0, 2.0)]
    assert middle(seen) == Floor(2.0, {"create": 1.0})


def test_an_answer_other_than_200_is_listed_and_fails_the_crowd() -> None:
    wakes = {rung: [0.1] for rung in SLEEPS}
    fine = rows(Seen(wakes, calls=3, highest=MEMORY))
    assert all(row.met for row in fine)
    lost = rows(Seen(wakes, calls=4, highest=MEMORY + 1, failures=Counter({"fork-00: 503 no room": 1})))
    assert [row.met for row in lost[:2]] == [False, False]
    assert "fork-00: 503 no room" in lost[0].other
    idle = rows(Seen({**wakes, "pause": []}, calls=2))
    assert [row.name for row in idle if not row.met] == ["wakes of sleep = pause"]


def test_what_the_router_counts_is_the_sum_of_all_that_takes_memory() -> None:
    told = ['torpor_memory_bytes{of="replicas"} 9.0e+07', 'torpor_memory_bytes{of="platform"} 1e7']
    assert total("\n".join([*told, "torpor_memory_limit_bytes 5"])) == 1e8


def test_without_an_engine_two_lines_say_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "containers", "--json"]
    env = {**os.environ, "TORPOR_ENGINE": str(tmp_path / "none.sock")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    what, remedy = done.stderr.strip().splitlines()
    assert str(tmp_path / "none.sock") in what
    assert "start it" in remedy


@pytest.fixture
def found(engine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("TORPOR_ENGINE", str(engine))
    mine = Engine()
    yield mine
    mine.close()


@pytest.fixture
def platform(found: Engine) -> Iterator[str]:
    """An id; what was made for it is removed."""
    mine = token_hex(4)
    yield mine
    found.sweep(mine)
    assert found.containers(mine) == []


def create(found: Engine, platform: str, image: str, folder: Path) -> str:
    """A container as torpor has them, of which nothing runs yet."""
    (folder / "home").mkdir()
    name = f"torpor-{platform}-e-1"
    config: dict[str, Any] = {
        "Image": image,
        "Entrypoint": ["python", "-c", "import time; time.sleep(600)"],
        "Cmd": [],
        "User": f"{os.getuid()}:{os.getgid()}",
        "Env": [f"BENTOML_HOME={folder}/home"],
        "Labels": {PLATFORM: platform, ENDPOINT: "e"},
        "HostConfig": {"NetworkMode": "none", "Binds": [f"{folder}:{folder}:ro"], "Tmpfs": {f"{folder}/home": "rw"}},
    }
    found.create(name, config)
    return name


def test_a_container_that_is_made_ahead_takes_nothing_and_one_that_runs_what_its_processes_do(
    found: Engine, platform: str, base_image: str, tmp_path: Path
) -> None:
    name = create(found, platform, base_image, tmp_path)
    assert (found.taken(platform).pss, found.taken(platform).charged) == (0, 0)
    found.start(name)
    wait(lambda: found.taken(platform, "e").pss > 1 << 20, "its interpreter has no memory")
    assert found.taken(platform, "e").charged > 0
    assert found.taken(platform, "other").pss == 0
    found.remove(name)
    found.remove(name)  # what is gone stays so


def test_the_floors_are_timed_from_the_start_to_the_answer_and_leave_no_container(
    found: Engine, platform: str, base_image: str, tmp_path: Path
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "service.py").write_text(SERVICE)
    like = found.inspect(create(found, platform, base_image, tmp_path))
    floors = Floors(found, like, str(source))
    assert floors.run_byte().took > 0
    api = floors.api_byte()
    assert list(api.phases) == ["create", "start"]
    assert sum(api.phases.values()) == pytest.approx(api.took)
    loaded = floors.run_loaded()
    assert list(loaded.phases) == ["script", "imports", "model", "call"]
    assert 0 < sum(loaded.phases.values()) <= loaded.took
    assert all(took >= 0 for took in loaded.phases.values())
    listed = found._http.get("/containers/json", params={"all": "true"}).json()
    assert not [name for each in listed for name in each["Names"] if floors.prefix in name]


def test_a_floor_whose_container_ends_says_what_it_printed(
    found: Engine, platform: str, base_image: str, tmp_path: Path
) -> None:
    like = found.inspect(create(found, platform, base_image, tmp_path))
    with pytest.raises(RuntimeError, match="No module named 'service'"):
        Floors(found, like, str(tmp_path)).run_loaded()
