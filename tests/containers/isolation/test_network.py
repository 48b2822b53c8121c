"""Escapes by the network, each tried from inside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import httpx

from tests.containers.cells import PATIENCE, Cells
from tests.containers.engine import asked

MiB = 1 << 20


def test_it_has_no_network_not_even_the_machine_s_own(jail: Cells) -> None:
    address = httpx.URL(jail.url)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0torpor-tests-{os.getpid()}")
        listener.listen()
        told = jail.inside(
            "prisoner",
            f"""
            import os, socket
            out = {{"interfaces": [name for _, name in socket.if_nameindex()]}}
            def reach(name, family, place, kind=socket.SOCK_STREAM):
                with socket.socket(family, kind) as tried:
                    tried.settimeout(3)
                    try:
                        tried.connect(place)
                        out[name] = "connected"
                    except OSError as error:
                        out[name] = error.strerror or str(error)
            reach("router", socket.AF_INET, ("127.0.0.1", {address.port}))
            reach("machine", socket.AF_INET, ("{own_address()}", {address.port}))
            reach("metadata", socket.AF_INET, ("169.254.169.254", 80))
            reach("names", socket.AF_INET, ("192.0.2.53", 53), socket.SOCK_DGRAM)
            reach("abstract", socket.AF_UNIX, "\\0torpor-tests-{os.getpid()}")
            try:
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                out["raw"] = "made"
            except OSError as error:
                out["raw"] = error.strerror
            """,
        )
    assert told.pop("interfaces") == ["lo"]
    unreachable, refused = "Network is unreachable", "Connection refused"
    assert told == {
        "router": refused,
        "machine": unreachable,
        "metadata": unreachable,
        "names": unreachable,
        "abstract": refused,
        "raw": "Operation not permitted",
    }


def own_address() -> str:
    """This machine's, as the world sees it; one that is nobody's where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "192.0.2.1"


def test_egress_asks_for_a_network_and_nothing_else_has_one(jail: Cells, engine: Path) -> None:
    jail.deploy("outward", sleep="stop", egress=True)
    try:
        modes = {
            name: {
                asked(engine, "GET", f"/containers/{each['Id']}/json").json()["HostConfig"]["NetworkMode"]
                for each in jail.containers(name)
            }
            for name in ("outward", "prisoner")
        }
    finally:
        httpx.delete(f"{jail.url}/torpor/v1/endpoints/outward", timeout=PATIENCE).raise_for_status()
    assert modes["prisoner"] == {"none"}
    assert modes["outward"]
    assert "none" not in modes["outward"]
    assert "host" not in modes["outward"]
