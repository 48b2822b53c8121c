"""An image that replicas' containers can be made of, with what the services of this repository run on."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import yaml

from router.launch.container.api import ContainerApi
from router.launch.container.images import Images
from router.shell.request import Needs
from tests.system.handmade import bento
from tests.system.running import REPOSITORY

PLATFORM = "torpor-tests"  # whose image it is: the next run of the tests finds it again
NETWORK = "host"  # as of the images that it is built on: the mirrors of a machine may be reached from there alone
SERVICE = REPOSITORY / "services" / "embedding"
ENTRYPOINT = b"#!/bin/sh\n"  # of what bentoml starts; torpor names its own


async def make_host_image(engine: Path, folder: Path) -> str:
    """Its id. Built from a bento that asks for the packages of the embedding service, if the engine has none yet."""
    wanted = yaml.safe_load((SERVICE / "bentofile.yaml").read_text())["python"]["packages"]
    files = {"env/docker/entrypoint.sh": ENTRYPOINT}
    told = bento("host", "", "service:Hello", "\n".join(wanted) + "\n", **files)
    with tarfile.open(fileobj=io.BytesIO(told)) as tar:
        tar.extractall(folder / "bento", filter="data")
    api = ContainerApi(engine)
    try:
        images = Images(api, PLATFORM, NETWORK, folder / "spool")
        return await images.of(Needs(folder / "bento" / "src", folder / "bento", "service:Hello"), "", print)
    finally:
        await api.close()
