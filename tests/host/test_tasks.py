"""Tasks: their store is the endpoint's, and an unfinished one keeps its replica."""

from __future__ import annotations

from tests.host.hosting import Gate, Host, Replica


def status(replica: Replica, task: str) -> str:
    return str(replica.http.get("/later/status", params={"task_id": task}).json()["status"])


def test_a_task_is_told_to_the_router_until_it_has_ended(host: Host, gate: Gate) -> None:
    replica = host.fork("Patient")
    replica.ready()
    task = replica.http.post("/later/submit", json={"gate": str(gate)}).json()["task_id"]
    assert replica.hear() == {"ev": "busy", "tasks": 1}
    other = replica.http.post("/later/submit", json={"gate": str(gate)}).json()["task_id"]
    assert replica.hear() == {"ev": "busy", "tasks": 2}
    assert status(replica, task) == "in_progress"
    gate.open()
    assert [replica.hear(), replica.hear()] == [{"ev": "busy", "tasks": 1}, {"ev": "busy", "tasks": 0}]
    assert (status(replica, task), status(replica, other)) == ("completed", "completed")
    assert replica.http.get("/later/get", params={"task_id": task}).text == "done later"
    replica.terminate()
    assert replica.exited() == 0


def test_calls_leave_no_task_behind(host: Host) -> None:
    """A replica that is held up for long at the end of a call may tell of it, and then tells of its end."""
    replica = host.fork("Patient")
    replica.ready()
    for _ in range(20):
        assert replica.call("process").status_code == 200
    replica.terminate()
    assert replica.exited() == 0
    told = list(iter(replica.hear, {}))
    assert not told or told[-1] == {"ev": "busy", "tasks": 0}


def test_a_stop_waits_for_a_task_and_the_next_replica_knows_its_result(host: Host, gate: Gate) -> None:
    first = host.fork("Patient")
    first.ready()
    task = first.http.post("/later/submit", json={"gate": str(gate)}).json()["task_id"]
    gate.begun()
    first.terminate()
    gate.open()
    assert first.exited() == 0
    assert gate.done

    second = host.fork("Patient", state_folder=str(first.home / "state"))
    second.ready()
    assert status(second, task) == "completed"
    assert second.http.get("/later/get", params={"task_id": task}).text == "done later"
    again = second.http.post("/later/retry", params={"task_id": task}).json()["task_id"]
    assert again != task
    second.terminate()
    assert second.exited() == 0
    assert (first.home / "state" / "tasks.db").exists()
