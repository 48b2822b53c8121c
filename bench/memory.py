"""What a platform, a sleeping endpoint, a template and a replica take, beside `bentoml serve` of the same service."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from bench.cold import post_to, serving
from bench.platform import ROOT, conditions, exported_model, started
from bench.table import Row
from torpor import Client

MB = 1 << 20
SLEEPERS = 20  # endpoints registered and asleep
GOALS = {"rest": 200, "deep": 1, "template": 20, "awake": 60}  # MB


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    exported_model()
    folder = str(ROOT / "services" / "embedding")
    environment = {"TORPOR_PRECISION": "int8"}
    with started() as client:
        router = int(client.status()["pid"])
        client.deploy(folder, name="first", env=environment, settings={"sleep": "deep"})
        client.sleep("first")
        rest = settled(router)
        for k in range(SLEEPERS):
            client.deploy(folder, name=f"deep-{k}", env=environment, settings={"sleep": "deep"})
            client.sleep(f"deep-{k}")
        deep = (settled(router) - rest) / SLEEPERS
        client.deploy(folder, name="template", env=environment, settings={"sleep": "template"})
        client.sleep("template")
        settled(router)
        template = private(newest(router, {"forkserver", "router"}))
        client.deploy(folder, name="awake", env=environment, settings={"sleep": "deep"})
        for _ in range(20):
            post_to(client, "awake")
        time.sleep(2)  # the session that answered first is replaced by the packed one
        (replica,) = client.get("awake")["replicas"]
        awake = private(int(replica["pid"]))
    with serving("int8") as (server, port):
        for _ in range(20):
            post_to_port(port)
        peer = sum(pss(p.pid) for p in [psutil.Process(server), *psutil.Process(server).children(recursive=True)])
    rows = [
        row("the platform at rest", rest, "rest"),
        row(f"each of {SLEEPERS} endpoints, asleep deep", deep, "deep"),
        row("a template, private", template, "template"),
        row("a replica awake, private", awake, "awake", f"{peer / MB:.0f} MB"),
    ]
    return conditions(), rows
