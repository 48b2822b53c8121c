"""The commands about revisions, against a real platform."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Torpor
from tests.cli.test_commands import document, done
from torpor.cli.completion import names
from torpor.cli.revisions import canary, events, history, promote, rollback, start, terminate

SERVICE = """
import os
import bentoml

@bentoml.service
class Said:
    @bentoml.api
    def version(self) -> str:
        return os.environ["VERSION"]
"""

Deploy = Callable[..., str]


@pytest.fixture
def service(torpor: Torpor, tmp_path: Path) -> Iterator[str]:
    """A folder to deploy; what was deployed as `said` is removed."""
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "service.py").write_text(SERVICE)
    yield str(tmp_path / "said")
    torpor("rm", "said")


def called(torpor: Torpor, name: str = "said") -> str:
    return done(torpor, "call", name, "version")


def deploy(torpor: Torpor, service: str, version: str, *flags: str) -> str:
    return done(torpor, "deploy", service, "--name", "said", "-e", f"VERSION={version}", *flags)


def test_history_is_told_newest_first_without_values_of_variables(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "hidden-1")
    deploy(torpor, service, "hidden-2", "--set", "idle_after=9", "--access")
    newest, oldest = document(torpor, "history", "said")
    assert (newest["number"], newest["state"], newest["env"]) == (2, ["live"], ["VERSION"])
    assert (newest["settings"], newest["access"], newest["secrets"]) == ({"idle_after": 9}, True, [])
    assert (oldest["number"], oldest["state"], oldest["settings"], oldest["access"]) == (1, [], {}, None)
    title, first, second = done(torpor, "history", "said").splitlines()
    assert title.split() == ["REVISION", "BENTO", "MADE", "BY", "STATE", "SET"]
    assert re.fullmatch(r"2 +said:\w+ +\d+ s ago  -   live +VERSION idle_after=9\.0 access", first)
    assert re.fullmatch(r"1 +said:\w+ +\d+ s ago  -   - +VERSION", second)
    assert "hidden" not in done(torpor, "history", "said", "--json") + done(torpor, "events", "said", "--json")


def test_rollback_goes_back_and_says_what_answers(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")
    deploy(torpor, service, "two")
    result = torpor("rollback", "said")
    assert re.fullmatch(r"said \(revision 1, said:\w+\) answers at http://\S+/endpoints/said\n", result.stdout)
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["checked", "preparing", "starting"]
    assert called(torpor) == "one"
    assert document(torpor, "rollback", "said", "2")["revision"] == 2
    assert called(torpor) == "two"
    told = [json.loads(done(torpor, "events", "said", "--json", "-n", "1"))[0]["text"]]
    assert told == ["revision 2 is live in the place of 1"]


def test_a_canary_gets_its_share_changes_it_and_is_promoted(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")
    made = done(torpor, "canary", "said", service, "--weight", "100", "--by-header", "X-User", "-e", "VERSION=two")
    assert re.match(r"said~canary \(revision 2, said:\w+\) gets 100% of the calls by header X-User, and answers", made)
    assert (called(torpor), called(torpor, "said~canary")) == ("one", "two")
    assert "gets 100% of the calls, and" in done(torpor, "canary", "said", "--random")
    assert called(torpor) == "two"
    assert "gets 0% of the calls, and" in done(torpor, "canary", "said", "--weight", "0")
    assert called(torpor) == "one"
    assert "gets copies of 5% of the calls" in done(torpor, "canary", "said", "--weight", "5", "--shadow")
    (variant,) = document(torpor, "show", "said")["variants"]
    assert (variant["name"], variant["revision"], variant["rule"]["kind"]) == ("canary", 2, "shadow")
    assert "variant canary" in done(torpor, "show", "said")
    assert "said (revision 2, " in done(torpor, "promote", "said")
    assert called(torpor) == "two"
    assert document(torpor, "show", "said")["variants"] == []


def test_a_canary_is_held_to_the_bounds_that_are_named_until_it_is_not_watched(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")

    def watched(*arguments: str) -> dict[str, Any] | None:
        (variant,) = document(torpor, "canary", "said", *arguments)["variants"]
        found: dict[str, Any] | None = variant["rule"].get("watch")
        return found

    assert watched(service, "-e", "VERSION=two", "--watch", "60", "--errors", "0.1") == {"window": 60, "errors": 0.1}
    assert watched("--latency", "3", "--promote") == {"window": 60, "errors": 0.1, "latency": 3, "promote": True}
    assert watched("--weight", "20", "--by-header", "X-User") == watched("--weight", "30") is not None
    refused = torpor("canary", "said", "--errors", "2")
    assert (refused.exit_code, "watch.errors=2.0 is out of bounds" in refused.stderr) == (3, True)
    refused = torpor("canary", "said", "--shadow", "--errors", "0.1")
    assert (refused.exit_code, "no share of the calls to watch" in refused.stderr) == (3, True)
    assert watched("--watch", "0") is None
    assert watched("--watch", "60") == {"window": 60}
    assert watched("--shadow") is None


def test_a_canary_that_has_ended_leaves_all_calls_to_the_live_revision(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")
    assert document(torpor, "canary", "said", service, "-e", "VERSION=two")["variants"][0]["rule"] == {
        "kind": "random",
        "by": "",
        "weight": 10,
    }
    assert done(torpor, "canary", "said", "--end") == "the canary of said has ended\n"
    assert called(torpor) == "one"
    assert torpor("call", "said~canary", "version").exit_code == 3


def test_an_environment_has_an_address_of_its_own_and_stays_when_it_is_promoted(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")
    made = deploy(torpor, service, "two", "--to", "staging")
    assert re.fullmatch(r"said~staging \(revision 2, said:\w+\) answers at http://\S+/endpoints/said~staging\n", made)
    assert (called(torpor), called(torpor, "said~staging")) == ("one", "two")
    assert done(torpor, "sleep", "said~staging") == "said~staging is asleep\n"
    assert called(torpor, "said~staging") == "two"
    done(torpor, "promote", "said", "--from", "staging")
    assert (called(torpor), called(torpor, "said~staging")) == ("two", "two")
    assert document(torpor, "history", "said")[0]["state"] == ["live", "staging"]
    assert torpor("rm", "said~staging").exit_code == 3, "a variant is no endpoint"
    assert called(torpor, "said~staging") == "two"


def test_a_terminated_endpoint_is_listed_as_such_and_started_again(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")
    assert done(torpor, "terminate", "said") == "said is terminated; to start it again: torpor start said\n"
    assert document(torpor, "terminate", "said")["terminated"] is True
    assert next(line for line in done(torpor, "ls").splitlines() if line.startswith("said ")).split()[1] == "terminated"
    refused = torpor("call", "said", "version")
    assert (refused.exit_code, refused.stderr.splitlines()[0]) == (3, "endpoint 'said' is terminated")
    assert done(torpor, "start", "said").startswith("said (revision 1, ")
    assert called(torpor) == "one"
    kinds = [event["kind"] for event in document(torpor, "events", "said")]
    assert kinds == ["deployed", "terminated", "started"]


def test_what_failed_is_an_event_with_its_reason(torpor: Torpor, service: str) -> None:
    deploy(torpor, service, "one")
    assert torpor("rollback", "said", "7").exit_code == 3
    assert torpor("deploy", service, "--name", "said", "-s", "nosuch", "-e", "VERSION=two").exit_code == 3
    lines = done(torpor, "events", "said").splitlines()
    assert re.fullmatch(r"\S+ rollback_failed  'said' has no revision 7", lines[1])
    assert lines[2:4] == ["  | see `torpor history said`", "  | revision 1 goes on serving"]
    assert re.match(r"\S+ deploy_failed    .*nosuch", lines[4])


FAULTS = [
    (("history", "nosuch"), 3, "no endpoint is called 'nosuch'\nsee `torpor ls`"),
    (("events", "nosuch"), 3, "'nosuch'"),
    (("events", "deployed", "-n", "0"), 3, "limit='0'\nuse a number of events"),
    (("rollback", "nosuch"), 3, "'nosuch'"),
    (("rollback", "deployed"), 3, "nothing was live at 'deployed' before its revision 1"),
    (("rollback", "deployed", "1"), 3, "revision 1 of 'deployed' is live already"),
    (("promote", "deployed"), 3, "'deployed' has no variant 'canary'"),
    (("promote", "deployed", "--from", "a/b"), 3, "has no variant 'a/b'"),
    (("canary", "deployed", "--end"), 3, "'deployed' has no variant 'canary'"),
    (("canary", "deployed", "--weight", "5"), 3, "make it: torpor canary deployed SOURCE --weight 10"),
    (("canary", "deployed", "deployed:x", "--by-header", "A", "--by-query", "b"), 3, "by header and query at once"),
    (("canary", "deployed", "--end", "--weight", "5"), 2, "--end takes nothing else"),
    (("canary", "deployed", "-e", "A=b"), 2, "name its SOURCE"),
    (("terminate", "nosuch"), 3, "'nosuch'"),
    (("terminate", "deployed~staging"), 3, "'deployed~staging'"),
    (("start", "nosuch"), 3, "'nosuch'"),
    (("deploy", "x", "--name", "deployed", "--to", "staging", "--port", "7999"), 2, "has its own address"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), FAULTS, ids=[" ".join(fault[0]) for fault in FAULTS])
def test_what_is_wrong_is_two_lines_and_the_exit_code_of_its_class(
    torpor: Torpor, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = torpor(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert result.stdout == ""
    if code == 3:
        assert len(result.stderr.splitlines()) == 2
        assert json.loads(torpor(*arguments, "--json").stdout)["error"] == result.stderr.rstrip("\n")


@pytest.mark.parametrize("command", [history, events, rollback, promote, canary, terminate, start])
def test_names_are_completed(command: object) -> None:
    (name,) = [each for each in command.params if each.name == "name"]  # type: ignore[attr-defined]
    assert name._custom_shell_complete is names
