"""Images that are given, not built: what of the host's needs is in them, and the layer that adds the rest."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import anyio

from router.launch.container.api import ContainerApi
from router.launch.container.containerfile import BASE, HEAD, KEY, beginning, labels
from router.launch.container.spec import identity
from router.launch.environment import own_pins
from torpor.errors import EngineFailed, InvalidService

LOOKING = "torpor.look"  # label of the containers that look into images: the platform's id
LOOK_WITHIN = 60.0  # seconds
MEMORY = 256 << 20  # bytes
NEEDED = (3, 11)  # what torpor's package needs of Python
PYTHONS = ("python", "python3")  # replicas are started as the first
NOT_THERE = ("not found", "no such file", "permission denied")

# Its last line is what was asked. An interpreter older than any that serves has to understand it.
SCRIPT = """
import json, os, sys
try:
    from importlib import metadata, util
except ImportError:
    metadata = util = None
def version(name):
    try:
        return metadata.version(name)
    except Exception:
        return ""
from shutil import which
# Text and newline in one write: Podman's log has two parts of a line that came in two, and tells the last one only.
sys.stdout.write(json.dumps({
    "python": list(sys.version_info[:3]),
    "executable": sys.executable,
    "pip": bool(util and util.find_spec("pip")),
    "uv": bool(which("uv")),
    "versions": {name: version(name) for name in sys.argv[1:]},
}) + chr(10))
"""


@dataclass(frozen=True, slots=True)
class Given:
    """What was found. `called`: the name that its interpreter is started by, `missing`: pins."""

    called: str
    executable: str
    python: tuple[int, ...]
    installer: str  # pip, uv, or "" for none
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not self.missing and self.called == PYTHONS[0]


async def look(api: ContainerApi, image: str, given: str, platform: str) -> Given:
    """Runs the image's interpreter once, without network, on a root that it cannot write. `image`: its id.

    Raises InvalidService for an image without a Python that serves, or with nothing to install what is missing.
    """
    for old in await api.labelled(f"{LOOKING}={platform}"):
        if str(old.get("State")).lower() != "running":  # of a router that was killed
            await api.remove(str(old["Id"]))
    for called in PYTHONS:
        told = await _asked(api, image, given, platform, called)
        if told is not None:
            return _judged(given, called, told)
    raise InvalidService(
        f"the image {given} has no Python: neither {' nor '.join(PYTHONS)} runs in it\n"
        "name one with Python 3.11 or later, such as bentoml containerize makes"
    )


async def _asked(api: ContainerApi, image: str, given: str, platform: str, called: str) -> dict[str, Any] | None:
    """What the script prints; None where there is no such program."""
    user, userns = identity(await api.kind())
    pins = own_pins()
    host = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": MEMORY,
        "PidsLimit": 64,
        **({"UsernsMode": userns} if userns else {}),
    }
    config = {
        "Image": image,
        "Entrypoint": [called, "-c", SCRIPT, *(pin.partition("==")[0] for pin in pins)],
        "Cmd": [],
        "User": user,
        "WorkingDir": "/",
        "Labels": {LOOKING: platform},
        "HostConfig": host,
    }
    container = await api.create(f"torpor-look-{token_hex(6)}", config)
    try:
        with anyio.move_on_after(LOOK_WITHIN) as limit:
            try:
                await api.start(container)
            except EngineFailed as error:
                if any(each in str(error).lower() for each in NOT_THERE):
                    return None
                raise
            await api.wait(container)
        lines = await api.lines(container, 20)
        with contextlib.suppress(ValueError, IndexError):
            told = json.loads(lines[-1])
            if isinstance(told, dict) and not limit.cancelled_caught:
                return told
        said = " | ".join(lines[-5:]) or "nothing"
        raise InvalidService(f"the image {given} does not run its {called}: it says {said}\nname one that does")
    finally:
        with anyio.CancelScope(shield=True):
            await api.remove(container)


def _judged(given: str, called: str, told: dict[str, Any]) -> Given:
    python = tuple(told["python"])
    if python < NEEDED:
        raise InvalidService(
            f"the image {given} has Python {'.'.join(map(str, python))}, and a replica needs {NEEDED[0]}.{NEEDED[1]} "
            "or later\nname one that has it"
        )
    missing = tuple(pin for pin in own_pins() if told["versions"].get(pin.partition("==")[0]) != pin.partition("==")[2])
    installer = "uv" if told["uv"] else "pip" if told["pip"] else ""
    found = Given(called, str(told["executable"]), python, installer, missing)
    if missing and not installer:
        raise InvalidService(
            f"the image {given} lacks {', '.join(missing)}, and has neither pip nor uv to install it\n"
            "install it in the image, or name one that has pip"
        )
    return found


def completion_key(image: str, platform: str) -> str:
    """Of the layer on the image of an id."""
    return hashlib.sha256("\n".join([platform, HEAD, image, *own_pins()]).encode()).hexdigest()[:32]


def completion(image: str, user: str, found: Given, platform: str) -> str:
    """A Dockerfile: the image with what it lacks, installed by its own means. `user`: the image's own."""
    python = found.executable
    install = {
        "uv": ["uv", "pip", "install", "--break-system-packages", "--python", python, *found.missing],
        "pip": [python, "-m", "pip", "install", "--disable-pip-version-check", *found.missing],
    }
    steps = [f"FROM {image}", beginning(platform), "ARG PIP_BREAK_SYSTEM_PACKAGES=1", "USER root"]
    if found.missing:
        steps.append(f"RUN {json.dumps(install[found.installer])}")
    if found.called != PYTHONS[0]:  # beside it: an interpreter finds its environment by where it was started
        link = "import os, sys; at, name = os.path.split(sys.executable); os.symlink(name, os.path.join(at, 'python'))"
        steps.append(f"RUN {json.dumps([python, '-c', link])}")
    told = {KEY: completion_key(image, platform), BASE: image}
    return "\n".join([*steps, f"USER {user or 'root'}", labels(told)])
