"""The endpoints' logs: bounded, read from the end, followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.launch.logs import KEPT, TAIL_BYTES, Logs


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path, file_max=10_000)


def written(logs: Logs, replica: str, text: str, endpoint: str = "e") -> Path:
    """A replica's file with something in it; each is a second newer than the one before."""
    path = logs.open(endpoint, replica)
    with path.open("a") as file:
        file.write(text)
    newest = max((other.stat().st_mtime_ns for other in path.parent.iterdir()), default=0)
    os.utime(path, ns=(newest + 10**9, newest + 10**9))
    return path


def followed(logs: Logs, seen: dict[Path, int], endpoint: str = "e") -> list[str]:
    return list(logs.follow(endpoint, seen))


def test_the_tail_goes_over_all_replicas_with_the_newest_last(logs: Logs) -> None:
    written(logs, "e-1-a", "one\ntwo\n")
    written(logs, "e-1-b", "three\nfour")
    written(logs, "f-1-c", "not mine\n", "f")
    assert logs.tail("e", 100) == ["e-1-a one", "e-1-a two", "e-1-b three", "e-1-b four"]
    assert logs.tail("e", 3) == ["e-1-a two", "e-1-b three", "e-1-b four"]
    assert (logs.tail("e", 0), logs.tail("nobody", 5)) == ([], [])


def test_a_tail_is_read_from_the_end_of_a_long_file(logs: Logs) -> None:
    written(logs, "e-1-a", "".join(f"line {number}\n" for number in range(100_000)))
    assert logs.tail("e", 2) == ["e-1-a line 99998", "e-1-a line 99999"]
    assert len(logs.tail("e", 90_000)) < 90_000, "no more than its last bytes is read"


def test_the_files_of_an_endpoint_are_bounded_in_number(logs: Logs, tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        written(logs, f"e-1-{number:02}", "x\n")
    left = sorted(path.stem for path in (tmp_path / "e").iterdir())
    assert left == [f"e-1-{number:02}" for number in range(5, KEPT + 5)]


def test_a_log_is_private_to_its_user(logs: Logs) -> None:
    assert logs.open("e", "e-1-a").stat().st_mode & 0o077 == 0


def test_a_long_file_is_cut_to_its_last_whole_lines_while_its_replica_writes_on(logs: Logs, tmp_path: Path) -> None:
    path = written(logs, "e-1-a", "")
    short = written(logs, "e-1-b", "short\n")
    forkserver = tmp_path / "forkserver.log"
    forkserver.write_text("y" * 50 + "\n" + "x" * 20_000 + "\nlast\n")
    with path.open("a") as replica:
        for number in range(2000):
            replica.write(f"line {number}\n")
        replica.flush()
        logs.bound()
        replica.write("and on\n")
    lines = path.read_text().splitlines()
    assert lines[-2:] == ["line 1999", "and on"]
    assert lines[0] == f"line {2001 - len(lines)}", "no line is cut in two"
    assert 4_000 < path.stat().st_size <= 5_100
    assert short.read_text() == "short\n"
    assert forkserver.read_text() == "last\n"
    before = path.stat().st_mtime_ns
    logs.bound()
    assert path.stat().st_mtime_ns == before, "what is short enough is not touched"


def test_what_is_written_from_now_on_is_followed_in_whole_lines(logs: Logs) -> None:
    path = written(logs, "e-1-a", "old\n")
    seen = logs.ends("e")
    assert followed(logs, seen) == []
    with path.open("a") as replica:
        replica.write("new\nhalf a li")
        replica.flush()
        assert followed(logs, seen) == ["e-1-a new"]
        assert followed(logs, seen) == []
        replica.write("ne\n\n")
    written(logs, "e-1-b", "of a new replica\n")
    assert followed(logs, seen) == ["e-1-a half a line", "e-1-a ", "e-1-b of a new replica"]


def test_a_line_without_an_end_does_not_stop_the_following(logs: Logs) -> None:
    path = written(logs, "e-1-a", "")
    seen = logs.ends("e")
    with path.open("a") as replica:
        replica.write("x" * (2 * TAIL_BYTES) + "end\nnext\n")
    assert followed(logs, seen) == [f"e-1-a {'x' * TAIL_BYTES}"]
    assert followed(logs, seen) == [f"e-1-a {'x' * TAIL_BYTES}"]
    assert followed(logs, seen) == ["e-1-a end", "e-1-a next"]


def test_a_follower_goes_on_after_a_cut_without_repeating_anything(logs: Logs) -> None:
    path = written(logs, "e-1-a", "old\n" * 4000)
    seen = logs.ends("e")
    logs.bound()
    assert followed(logs, seen) == []
    with path.open("a") as replica:
        replica.write("after the cut\n")
    assert followed(logs, seen) == ["e-1-a after the cut"]


def test_bytes_that_are_no_text_are_shown_as_such(logs: Logs) -> None:
    path = written(logs, "e-1-a", "")
    seen = logs.ends("e")
    path.write_bytes(b"caf\xe9\n")
    assert followed(logs, seen) == logs.tail("e", 1) == ["e-1-a caf\N{REPLACEMENT CHARACTER}"]


def test_a_removed_endpoint_has_no_log(logs: Logs, tmp_path: Path) -> None:
    written(logs, "e-1-a", "x\n")
    seen = logs.ends("e")
    logs.remove("e")
    logs.remove("e")
    assert (logs.tail("e", 9), followed(logs, seen), list(tmp_path.iterdir())) == ([], [], [])
