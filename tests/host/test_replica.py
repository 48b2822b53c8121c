"""A replica's start, its failures, and its end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.host.hosting import Gate, Host, Replica

HEAD = "import bentoml\n\n"
SERVICE = HEAD + "@bentoml.service\nclass Subject:\n    pass\n"
REQUIRING = HEAD + '@bentoml.service(envs=[{"name": "TOKEN"}, {"name": "SECRET"}])\nclass Subject:\n    pass\n'
COMMAND = HEAD + '@bentoml.service(cmd=["sleep", "9"])\nclass Subject:\n    pass\n'
TWO = SERVICE + "@bentoml.service\nclass Other:\n    pass\n"
INSIDE = HEAD + (
    '@bentoml.service(envs=[{"name": "TOKEN"}])\nclass Inner:\n    pass\n\n'
    "@bentoml.service\nclass Subject:\n    inner = bentoml.depends(Inner)\n"
)
BROKEN = (
    HEAD + "@bentoml.service\nclass Subject:\n    def __init__(self) -> None:\n        print('before')\n        1 / 0\n"
)
ENDS = BROKEN.replace("import bentoml", "import sys, bentoml")
NOT_READY = HEAD + "@bentoml.service\nclass Subject:\n    def __is_ready__(self) -> bool:\n        return False\n"


def test_ready_tells_phases_facts_and_the_limit(host: Host) -> None:
    replica = host.fork("Limited", learn=True)
    said = replica.ready()
    assert list(said["phases"]) == ["fork", "import", "load", "app"]
    assert all(seconds >= 0 for seconds in said["phases"].values())
    assert (said["in_flight_limit"], said["facts"]["path_prefix"]) == (2, "/v3")  # four calls, in two workers
    assert said["schema"]["routes"][0]["route"] == "/v3/hold"
    replica.terminate()
    assert replica.exited() == 0


def test_calls_above_the_limit_are_429(host: Host, gate: Gate) -> None:
    """The router does not send them unless it is told to."""
    replica = host.fork("Limited")
    replica.ready()
    lines = [replica.line("v3/hold", gate=str(gate)) for _ in range(2)]
    gate.begun()
    answer = replica.call("v3/hold", gate=str(gate))
    assert (answer.status_code, answer.json()) == (429, {"error": "Too many requests"})
    assert replica.http.get("/v3/livez").status_code == 200
    gate.open()
    assert all(b"held" in line.read(b"held") for line in lines)
    replica.terminate()
    assert replica.exited() == 0


def test_a_replica_has_its_own_environment_folder_and_metrics(patient: Replica, host: Host) -> None:
    replica = host.fork("Patient", env={"GREETING": "hi"})
    replica.ready()
    process, other = replica.call("process").json(), patient.call("process").json()
    assert (process["greeting"], other["greeting"]) == ("hi", None)
    assert process["folder"] == process["path"] == str(replica.home / "source")
    assert process["metrics"] == str(replica.home / "run")
    assert process["deployment"] is None  # the fork-server's environment has one, which would redirect calls
    replica.terminate()
    assert replica.exited() == 0
    assert (replica.home / "source" / "ended").exists()  # its shutdown hook


@pytest.mark.parametrize(
    ("target", "source", "error"),
    [
        ("Subject", HEAD + "Subject = 3\n", "service:Subject is of type int, not a BentoML service"),
        (
            "Subject",
            HEAD + "class Subject:\n    pass\n",
            "service:Subject is a class without @bentoml.service, not a BentoML service",
        ),
        ("Subject", HEAD + "import json as Subject\n", "service:Subject is of type module, not a BentoML service"),
        ("Subject", HEAD, 'Attribute "Subject" not found in module "service".'),
        ("Subject", HEAD + "import not_there\n", "Failed to import module \"service\": No module named 'not_there'"),
        ("Subject", HEAD + "with bentoml.importing():\n    import not_there\n", 'Failed to import module "service"'),
        ("Subject", "with open('x') as file\n", "SyntaxError: expected ':' (service.py, line 1)"),
        ("Subject", REQUIRING, "the environment variables TOKEN, SECRET are required and not set"),
        ("Subject", INSIDE, "the environment variables TOKEN are required and not set"),
        ("Subject", COMMAND, "service:Subject starts a command of its own, which a replica does not run"),
        ("Subject", BROKEN, "ZeroDivisionError: division by zero"),
        ("Subject", ENDS.replace("1 / 0", "sys.exit('no GPU here')"), "no GPU here"),
        ("Subject", ENDS.replace("1 / 0", "sys.exit(0)"), "it called sys.exit(0)"),
        ("", HEAD, "No service found in the module 'service'"),
        ("", TWO, 'Multiple `bentoml.Service` instances found in module "service", use "service:<svc_variable_name>"'),
    ],
)
def test_what_cannot_be_served_is_one_sentence_with_the_log(host: Host, target: str, source: str, error: str) -> None:
    replica = host.fork(target, source)
    said = replica.hear()
    assert (said["ev"], said["code"]) == ("failed", "start_failed")
    assert said["error"].startswith(error)
    assert "\n" not in said["error"]
    assert replica.hear() == {}
    assert replica.exited() == 1
    log = replica.log.read_text()
    assert "Traceback" in log
    assert said["log"] == log.splitlines()[-20:]


def test_what_a_killed_replica_printed_is_in_its_log(host: Host) -> None:
    source = SERVICE.replace(
        "pass",
        "def __init__(self) -> None:\n        print('made')\n\n    @bentoml.api\n    def die(self) -> None:\n"
        "        import os\n        print('about to die')\n        os.kill(os.getpid(), 9)",
    )
    replica = host.fork("Subject", source)
    replica.ready()
    assert "made\n" in replica.log.read_text()
    with pytest.raises(httpx.HTTPError):
        replica.call("die")
    assert replica.exited() == -signal.SIGKILL
    assert replica.log.read_text().endswith("about to die\n")


def test_a_shutdown_hook_that_raises_is_not_told_as_a_start_that_failed(host: Host) -> None:
    source = SERVICE.replace("pass", "@bentoml.on_shutdown\n    def leave(self) -> None:\n        1 / 0")
    replica = host.fork("Subject", source)
    replica.ready()
    replica.terminate()
    assert replica.exited() == 1
    assert replica.hear() == {}
    assert "ZeroDivisionError" in replica.log.read_text()


def test_a_missing_module_is_named(host: Host) -> None:
    replica = host.fork("absent:Subject", SERVICE)
    assert replica.hear()["error"] == "Failed to import module \"absent\": No module named 'absent'"
    assert replica.exited() == 1


def test_the_traceback_and_what_was_printed_are_in_the_log(host: Host) -> None:
    replica = host.fork("Subject", BROKEN)
    assert replica.exited() == 1
    log = replica.log.read_text()
    assert log.startswith("before\n")
    assert ", line 7, in __init__\n    1 / 0\n" in log
    assert log.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_service_that_is_never_ready_ends_when_it_is_told_to(host: Host) -> None:
    replica = host.fork("Subject", NOT_READY.replace("return", "print('asked', flush=True)\n        return"))
    while "asked" not in replica.log.read_text():
        pass
    replica.terminate()
    assert replica.exited() == 0
    assert replica.hear() == {}


def test_one_service_needs_no_name(host: Host) -> None:
    replica = host.fork("", SERVICE)
    replica.ready()
    replica.terminate()
    assert replica.exited() == 0


def stop_by_signal(replica: Replica) -> None:
    replica.terminate()


def stop_by_end_of_file(replica: Replica) -> None:
    replica.control.close()


@pytest.mark.parametrize("stop", [stop_by_signal, stop_by_end_of_file])
def test_a_stop_drains_what_runs_and_runs_the_hooks(host: Host, gate: Gate, stop: Any) -> None:
    replica = host.fork("Patient")
    replica.ready()
    busy, idle = replica.line("hold", gate=str(gate)), replica.line("process")
    gate.begun()
    idle.read(b"}")
    stop(replica)
    assert idle.rest() == b""  # idle lines are closed at once
    assert busy.is_open()
    assert not (replica.home / "source" / "ended").exists()
    gate.open()
    assert b"held" in busy.rest()
    assert replica.exited() == 0
    assert (replica.home / "source" / "ended").exists()


def test_a_second_signal_changes_nothing(host: Host, gate: Gate) -> None:
    replica = host.fork("Patient")
    replica.ready()
    line = replica.line("hold", gate=str(gate))
    gate.begun()
    for _ in range(3):
        replica.terminate()
    gate.open()
    assert b"held" in line.rest()
    assert replica.exited() == 0


def test_a_call_sent_before_the_replica_listens_is_answered(host: Host) -> None:
    """The listening socket is older than the process."""
    replica = host.fork("Patient")
    assert replica.call("process").status_code == 200
    assert replica.ready()
    replica.terminate()
    assert replica.exited() == 0


def test_a_service_killed_by_itself_says_so_by_its_end(host: Host) -> None:
    source = SERVICE.replace("pass", "def __init__(self) -> None:\n        import os\n        os.kill(os.getpid(), 11)")
    replica = host.fork("Subject", source)
    assert replica.hear() == {}
    assert replica.exited() == -signal.SIGSEGV
    log = replica.log.read_text()
    assert "Fatal Python error: Segmentation fault" in log
    assert ", line 7 in __init__\n" in log


def test_a_bento_with_arguments_is_loaded_with_them(host: Host) -> None:
    """`bentoml build` writes them into its manifest; most bentos have none, and are imported without reading it."""
    source = HEAD + (
        "GIVEN = bentoml.use_arguments()\n\n@bentoml.service\nclass Subject:\n    @bentoml.api\n"
        "    def given(self) -> str:\n        return f'{GIVEN.word} {bentoml.server_context.bento_version}'\n"
    )
    bento = host.folder / "bentos" / "subject" / "v7"
    (bento / "src").mkdir(parents=True)
    (bento / "src" / "service.py").write_text(source)
    (bento / "bento.yaml").write_text(
        "service: service:Subject\nname: subject\nversion: v7\nbentoml_version: 1.4.39\n"
        "creation_time: '2026-01-01T00:00:00+00:00'\nmodels: []\nargs:\n  word: hi\nspec: 2\n"
        "entry_service: Subject\nimage: {}\nservices:\n"
        "- {name: Subject, service: '', models: [], dependencies: [], config: {}}\n"
    )
    replica = host.fork("Subject", source, folder=str(bento / "src"), bento=str(bento))
    replica.ready()
    assert replica.call("given").text == "hi v7"
    replica.terminate()
    assert replica.exited() == 0
    assert Path(bento / "src" / "service.py").exists()
