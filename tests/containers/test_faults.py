"""Faults of containers and of their engine: named to who calls, gone with the next call, and nobody else's."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from tests.containers.cells import PATIENCE, Cells, cells, until
from tests.containers.engine import asked, own_engine, remove_labelled
from tests.system.handmade import events

LABEL = "torpor.test.faults"
MiB = 1 << 20
LIMIT = 512 * MiB
# The endpoint's own folder says when its image's interpreter breaks, and only where it would serve.
BROKEN = """\
FROM {image}
USER root
RUN mv /app/.venv/bin/python /app/.venv/bin/whole && printf '%s\\n' \\
 '#!/bin/sh' \\
 'case "$*" in *forkserver*) if [ -e {order} ]; then echo "libcuda.so.1 is missing" >&2; exit 3; fi;; esac' \\
 'exec /app/.venv/bin/whole "$@"' >/app/.venv/bin/python && chmod 755 /app/.venv/bin/python
LABEL {label}=1
"""


@dataclass
class Service:
    """An engine's API, which can be stopped: what it has started runs on. `engine`: the machine's own, for the rest."""

    engine: Path
    socket: Path
    running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        podman = shutil.which("podman")
        assert podman is not None
        self.running.enter_context(own_engine([podman], self.socket))

    def stop(self) -> None:
        self.running.close()
        self.socket.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def service(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Of Podman; Docker's daemon is not a test's to stop: what it says when it is down, Podman says too."""
    made = Service(engine, tmp_path_factory.mktemp("service") / "engine.sock")
    if "podman" in asked(engine, "GET", "/version").text.lower():
        made.start()
    else:
        made.socket.symlink_to(engine)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, service: Service, host_image: str) -> Iterator[Cells]:
    """Endpoints of every rung, one whose image can break, and one without a container."""
    folder = tmp_path_factory.mktemp("faulty")
    quick = {"drain_within": 1, "stop_within": 1}
    try:
        image = broken_image(service.engine, host_image, folder / "data" / "endpoints" / "broken" / "order")
        with cells(folder, service.socket, host_image) as made:
            made.deploy("alone", sleep="stop", memory_limit=LIMIT, **quick)
            made.deploy("kept", sleep="fork", memory_limit=LIMIT, **quick)
            made.deploy("frozen", sleep="pause", **quick)
            made.deploy("broken", sleep="stop", image=image, **quick)
            made.deploy("plain", launcher="process", **quick)
            yield replace(made, engine=service.engine)
    finally:
        remove_labelled(service.engine, LABEL)


def broken_image(engine: Path, image: str, order: Path) -> str:
    text = BROKEN.format(image=image, order=order, label=LABEL).encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    params = {"t": "torpor-test-broken:1", "networkmode": "host", "rm": "true"}
    asked(engine, "POST", "/build", params=params, content=context.getvalue()).raise_for_status()
    return str(asked(engine, "GET", "/images/torpor-test-broken:1/json").json()["Id"]).removeprefix("sha256:")


@pytest.fixture(autouse=True)
def whole(faulty: Cells) -> Iterator[None]:
    """Every test leaves endpoints that answer, and nothing that runs for nobody."""
    yield
    for name in ("alone", "kept", "frozen", "broken", "plain"):
        with contextlib.suppress(FileNotFoundError):
            (faulty.data / "endpoints" / name / "order").unlink()
    for name in ("alone", "kept", "frozen", "broken", "plain"):
        again(faulty, name)


def again(cells: Cells, name: str) -> None:
    """Returns once the endpoint answers."""
    until(lambda: answered(cells.call(name, "out = 1")))


def answered(answer: httpx.Response) -> bool:
    """Not while the endpoint is put off after a start that has failed, which is no loss: it says for how long."""
    if answer.status_code == 503:
        assert answer.json()["code"] in ("start_failed", "start_timeout"), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        return False
    assert answer.status_code == 200, answer.text
    return True


def runs(cells: Cells, endpoint: str) -> list[str]:
    return [each["Id"] for each in cells.containers(endpoint) if each["State"] == "running"]


def told(cells: Cells, endpoint: str) -> str:
    return "\n".join(f"{each['kind']}: {each['text']}" for each in cells.events(endpoint))


def test_a_container_that_ends_at_once_is_told_with_what_it_said(faulty: Cells) -> None:
    faulty.sleep("broken")
    faulty.order("broken", "")
    answer = faulty.call("broken", "out = 1")
    assert (answer.status_code, answer.json()["code"]) == (503, "start_failed")
    assert "ended at once with status 3: libcuda.so.1 is missing" in answer.json()["error"]
    assert answer.json()["detail"]["log"] == ["libcuda.so.1 is missing"]
    assert int(answer.headers["retry-after"]) >= 1
    assert "libcuda.so.1 is missing" in told(faulty, "broken")


def test_calls_that_come_soon_after_a_start_that_failed_start_none_and_are_told_the_same(faulty: Cells) -> None:
    faulty.sleep("broken")
    faulty.order("broken", "")
    first = faulty.call("broken", "out = 1")
    starts = told(faulty, "broken").count("libcuda.so.1")
    calls = [faulty.calling("broken", "out = 1") for _ in range(5)]
    assert {each.result(PATIENCE).status_code for each in calls} == {503}
    assert "libcuda.so.1 is missing" in calls[0].result().json()["error"]
    assert told(faulty, "broken").count("libcuda.so.1") - starts <= 1, "at most one, whose turn had come"
    assert int(calls[-1].result().headers["retry-after"]) >= int(first.headers["retry-after"])


def test_a_service_that_cannot_be_made_says_why(faulty: Cells) -> None:
    faulty.sleep("kept")
    faulty.order("kept", "raise RuntimeError('there are no such weights')")
    answer = faulty.call("kept", "out = 1")
    assert (answer.status_code, answer.json()["code"]) == (503, "start_failed")
    assert "RuntimeError: there are no such weights" in answer.json()["error"]
    assert any("there are no such weights" in line for line in answer.json()["detail"]["log"])


@pytest.mark.parametrize("name", ["alone", "kept"])
def test_a_replica_without_memory_is_named_as_such_with_its_limit_and_its_use(faulty: Cells, name: str) -> None:
    faulty.inside(name, "out = 1")
    answer = faulty.call(name, f"kept = b'x' * {2 * LIMIT}")
    assert (answer.status_code, answer.json()["code"]) == (502, "replica_died")
    words = "was ended by the kernel for lack of memory: its container may use 512 MiB, and used 51"
    until(lambda: words in told(faulty, name))
    assert faulty.inside(name, "out = 2") == 2


def test_a_start_without_memory_is_named_as_such_to_who_waits(faulty: Cells) -> None:
    faulty.sleep("alone")
    faulty.order("alone", f"kept = b'x' * {2 * LIMIT}")
    answer = faulty.call("alone", "out = 1")
    assert (answer.status_code, answer.json()["code"]) == (503, "start_failed")
    assert "was ended by the kernel for lack of memory: its container may use 512 MiB" in answer.json()["error"]


def told_running(engine: Path, container: str) -> bool:
    found = asked(engine, "GET", f"/containers/{container}/json")
    return found.is_success and bool(found.json()["State"]["Running"])


@pytest.mark.parametrize("name", ["alone", "kept"])
def test_a_container_that_is_killed_in_mid_call_is_502_for_that_call_and_the_next_is_served(
    faulty: Cells, name: str, service: Service
) -> None:
    faulty.inside(name, "out = 1")
    call = faulty.calling(name, "import time; time.sleep(60)")
    faulty.busy(name)
    for each in runs(faulty, name):
        killed = asked(service.engine, "POST", f"/containers/{each}/kill")
        assert killed.is_success or not told_running(service.engine, each), killed.text  # it may have ended by itself
    answer = call.result(PATIENCE)
    assert (answer.status_code, answer.json()["code"]) == (502, "replica_died")
    assert faulty.inside(name, "out = 2") == 2


def test_what_somebody_else_removed_from_the_engine_costs_no_call(faulty: Cells, service: Service) -> None:
    """Frozen, and made ahead: `prune` takes what does not run."""
    faulty.inside("frozen", "out = 1")
    for name in ("frozen", "alone"):
        faulty.sleep(name)
    until(lambda: [each["State"] for each in faulty.containers("alone")] == ["created"])
    for each in (*faulty.containers("frozen"), *faulty.containers("alone")):
        gone = asked(service.engine, "DELETE", f"/containers/{each['Id']}", params={"force": "true"})
        gone.raise_for_status()
    for name in ("frozen", "alone"):
        assert faulty.inside(name, "out = 2") == 2


def test_a_container_that_somebody_else_froze_is_ended_when_its_time_is_over(faulty: Cells, service: Service) -> None:
    faulty.inside("alone", "out = 1")
    [frozen] = runs(faulty, "alone")
    asked(service.engine, "POST", f"/containers/{frozen}/pause").raise_for_status()
    faulty.sleep("alone")
    until(lambda: frozen not in [each["Id"] for each in faulty.containers("alone")])
    assert faulty.inside("alone", "out = 2") == 2


def test_calls_go_on_while_the_engine_s_service_is_started_again(faulty: Cells, service: Service) -> None:
    names = ("alone", "kept", "frozen")
    for name in names:
        faulty.inside(name, "out = 1")
    calls = [faulty.calling(name, "import time; time.sleep(4); out = 2") for name in names]
    for name in names:
        faulty.busy(name)
    with stopped(service):
        pass
    assert [call.result(PATIENCE).text for call in calls] == ["2"] * 3


def test_an_engine_that_is_down_is_named_to_who_calls_and_others_are_served(faulty: Cells, service: Service) -> None:
    """Their containers end meanwhile, as they do where an engine is started again with all that it has."""
    names = ("alone", "kept")
    for name in (*names, "frozen"):
        faulty.inside(name, "out = 1")
    faulty.sleep("frozen")
    calls = [faulty.calling(name, "import time; time.sleep(60)") for name in names]
    for name in names:
        faulty.busy(name)
    with stopped(service):
        for name in names:
            for each in runs(faulty, name):
                asked(service.engine, "POST", f"/containers/{each}/kill")
        for call in calls:
            answer = call.result(PATIENCE)
            assert (answer.status_code, answer.json()["code"]) == (502, "replica_died")
        for name in names:
            answer = faulty.call(name, "out = 1")
            assert (answer.status_code, answer.json()["code"]) == (503, "start_failed")
            assert "container engine" in answer.json()["error"]
            assert "does not answer" in answer.json()["error"]
        frozen = faulty.call("frozen", "out = 1")
        assert frozen.status_code == 503
        assert faulty.inside("plain", "out = 2") == 2
        body = {"name": "alone", "bento": "cell:1", "settings": {"image": faulty.image}}
        refused = list(events(faulty.url, body))
        assert "does not answer" in str(refused[-1])
    for name in (*names, "frozen"):
        again(faulty, name)
    until(lambda: len(faulty.containers("alone")) <= 2, 90)


@contextlib.contextmanager
def stopped(service: Service) -> Iterator[None]:
    service.stop()
    try:
        yield
    finally:
        service.start()
