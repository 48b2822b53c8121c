"""What a first start teaches, and what the next one has from it."""

from __future__ import annotations

from pathlib import Path

from tests.host.hosting import Host


def test_learned_modules_are_imported_before_the_fork_and_not_again(host: Host) -> None:
    first = host.fork("Patient", learn=True)
    said = first.ready()
    assert "marker" in said["modules"]
    assert "service" not in said["modules"]  # the next revision's is another
    assert said["schema"]["name"] == "Patient"
    assert first.call("process").json()["marked_by"] == first.pid

    ready = host.preload(*said["modules"])
    assert "marker" in ready["preloaded"]
    assert ready["threads"] == 1

    second = host.fork("Patient")
    said = second.ready()
    assert (said["modules"], said["schema"]) == ([], {})
    assert second.call("process").json()["marked_by"] == host.pid
    for replica in (first, second):
        replica.terminate()
        assert replica.exited() == 0


def test_what_the_first_start_does_once_is_not_done_again(host: Host) -> None:
    source = """
import os
import bentoml

@bentoml.service
class Once:
    @bentoml.on_deployment
    @staticmethod
    def deployed() -> None:
        open(os.environ["WITNESS"], "a").write("deployed ")
"""
    witness = host.folder / "witness"
    for learn in (True, False):
        replica = host.fork("Once", source, learn=learn, env={"WITNESS": str(witness)})
        replica.ready()
        replica.terminate()
        assert replica.exited() == 0
    assert witness.read_text() == "deployed "


def test_the_memory_of_what_was_imported_is_shared(host: Host) -> None:
    """A fork that its collector does not walk through: most of its resident pages are its parent's."""
    replica = host.fork("Patient")
    assert replica.ready()["facts"]["threads"] == 1 + 1  # the store of its tasks has one
    assert replica.call("process").json()["frozen"] > 100_000
    rows = Path(f"/proc/{replica.pid}/smaps_rollup").read_text().splitlines()[1:]
    memory = {row.split(":")[0]: int(row.split()[1]) for row in rows}
    own = memory["Private_Clean"] + memory["Private_Dirty"]
    assert own < memory["Rss"] / 2, memory
    replica.terminate()
    assert replica.exited() == 0


def test_the_first_start_compiles_the_service_for_those_that_follow(host: Host) -> None:
    source = "import bentoml\n\n\n@bentoml.service\nclass Small:\n    pass\n"
    for learn in (True, False):
        replica = host.fork("Small", source, learn=learn)
        replica.ready()
        folder = Path(f"/proc/{replica.pid}/cwd").resolve()
        if learn:
            assert list(folder.rglob("service*.pyc"))
        replica.terminate()
        assert replica.exited() == 0
