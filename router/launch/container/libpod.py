"""Podman's own request that makes a container: what its Docker API is told, told to its other one. Pure.

Podman before 5.4 knows CDI's devices in its own API only (`devices.py`). A key that is not known here is refused, so
that no bound of a container is lost on the way; a test makes both containers and compares what the engine says of them.
The fields are those of podman 4.1 and later: pkg/specgen/specgen.go, and pkg/specgenutil for what goes without saying.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from torpor.errors import InternalError

PATH = "v4.0.0/libpod/containers/create"
PERIOD = 100_000  # microseconds in which a quota of processor time is had
# The Docker API has these beside a root that cannot be written.
IMPLIED = {path: "rw,rprivate,nosuid,nodev,tmpcopyup" for path in ("/run", "/tmp", "/var/tmp")}

# By key: the fields that it becomes. What goes into a field that several share is in `made`.
PLAIN = {"Image": "image", "Entrypoint": "entrypoint", "Cmd": "command", "User": "user", "WorkingDir": "work_dir"}
PLAIN |= {"Labels": "labels"}
OF_HOST = {"ReadonlyRootfs": "read_only_filesystem", "CapDrop": "cap_drop", "Privileged": "privileged"}
SPACES = {"NetworkMode": "netns", "IpcMode": "ipcns", "UsernsMode": "userns"}
MADE = {"Env", "StopSignal", "HostConfig"}
MADE_OF_HOST = {"Binds", "Tmpfs", "SecurityOpt", "Memory", "MemorySwap", "PidsLimit", "NanoCpus", "LogConfig"}
MADE_OF_HOST |= {"RestartPolicy", "DeviceRequests"}


def spec(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The same container. Raises InternalError for what is not known here."""
    host: Mapping[str, Any] = config["HostConfig"]
    strange = [*(config.keys() - PLAIN.keys() - MADE), *(host.keys() - OF_HOST.keys() - SPACES.keys() - MADE_OF_HOST)]
    if strange:
        raise InternalError(f"podman's own API is not told of {', '.join(sorted(strange))}\nuse podman 5.4 or later")
    return {
        "name": name,
        **{field: config[key] for key, field in PLAIN.items() if key in config},
        **{field: host[key] for key, field in OF_HOST.items() if key in host},
        "netns": {"nsmode": "bridge"},  # what the Docker API has for none
        **{field: {"nsmode": host[key]} for key, field in SPACES.items() if key in host},
        "env": dict(each.split("=", 1) for each in config.get("Env", ())),
        "stop_signal": int(signal.Signals[config.get("StopSignal", "SIGTERM")]),
        "stop_timeout": 0,
        "umask": "0000",
        "mounts": mounts(host),
        "no_new_privileges": security(host),
        "resource_limits": limits(host),
        "restart_policy": host.get("RestartPolicy", {}).get("Name", "no"),
        "log_configuration": logged(host),
        "devices": [{"path": device} for device in devices(host)],
    }


def mounts(host: Mapping[str, Any]) -> list[dict[str, Any]]:
    binds = [bind(*each.rsplit(":", 2)) for each in host.get("Binds", ())]
    there = {**(IMPLIED if host.get("ReadonlyRootfs") else {}), **host.get("Tmpfs", {})}
    return [*binds, *(mount("tmpfs", "tmpfs", path, options.split(",")) for path, options in there.items())]


def bind(source: str, target: str, mode: str) -> dict[str, Any]:
    return mount("bind", source, target, [mode])


def mount(kind: str, source: str, target: str, options: list[str]) -> dict[str, Any]:
    return {"type": kind, "source": source, "destination": target, "options": options}


def security(host: Mapping[str, Any]) -> bool:
    """Whether new privileges are barred, which is all that is asked for."""
    wanted = list(host.get("SecurityOpt", ()))
    if wanted not in ([], ["no-new-privileges"]):
        raise InternalError(f"podman's own API is not told of SecurityOpt {wanted}\nuse podman 5.4 or later")
    return bool(wanted)


def limits(host: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "Memory" in host:
        found["memory"] = {"limit": host["Memory"], "swap": host.get("MemorySwap", host["Memory"])}
    if "PidsLimit" in host:
        found["pids"] = {"limit": host["PidsLimit"]}
    if "NanoCpus" in host:
        found["cpu"] = {"period": PERIOD, "quota": host["NanoCpus"] * PERIOD // 10**9}
    return found


def logged(host: Mapping[str, Any]) -> dict[str, Any]:
    """Podman writes its own format where Docker's is asked for."""
    config = host.get("LogConfig", {}).get("Config", {})
    return {"driver": "k8s-file", **({"size": size(config["max-size"])} if "max-size" in config else {})}


def size(text: str) -> int:
    """Bytes: 1m is 1,000,000 to Podman."""
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1], 1)
    return int(text.rstrip("kmg")) * unit


def devices(host: Mapping[str, Any]) -> list[str]:
    """CDI's names."""
    found: list[str] = []
    for wanted in host.get("DeviceRequests", ()):
        if wanted["Driver"] != "cdi":
            raise InternalError(f"podman has no devices of the driver {wanted['Driver']}\nuse CDI's names")
        found += wanted["DeviceIDs"]
    return found
