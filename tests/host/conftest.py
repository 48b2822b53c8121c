"""One fork-server for all tests of this folder that do not end it, and one replica of each subject."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.hosting import Gate, Host, Replica


@pytest.fixture(scope="package")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    each = Host(tmp_path_factory.mktemp("host"))
    each.preload()
    yield each
    each.close()


@pytest.fixture(scope="package")
def patient(host: Host) -> Replica:
    """Ready; it stays for other tests."""
    replica = host.fork("Patient")
    replica.ready()
    return replica


@pytest.fixture(scope="package")
def hurried(host: Host) -> Replica:
    replica = host.fork("Hurried")
    replica.ready()
    return replica


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    each = Gate(tmp_path / "gate")
    yield each
    each.open()
