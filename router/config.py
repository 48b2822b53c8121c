"""Configuration: `torpor.toml` < `TORPOR_*` environment < flags. All faults are reported at once.

`python -m router.config` prints `docs/config.md`.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.core.settings import RUNGS, Settings
from router.proxy.limits import Limits
from torpor.errors import InvalidConfig
from torpor.wire import DEFAULT_PORT

PREFIX = "TORPOR_"
# The SDK's, the services' and the tests' own variables, which share the prefix.
FOREIGN = frozenset(
    f"TORPOR_{name}" for name in ("URL", "TOKEN", "CACERT", "PRECISION", "CONFIG", "CACHE", "REQUIRE_CONTAINERS")
)
CHOICES = {
    "auth": ("auto", "on", "off"),
    "log_format": ("text", "json"),
    "log_level": ("debug", "info", "warning", "error"),
    "sleep": ("auto", "deep", "template", "stop", "pause", "fork"),
    "launcher": tuple(RUNGS),
}

# key: (what it is, least, most); a bound of None is none.
BOUNDS: dict[str, tuple[str, float | None, float | None]] = {
    "data": ("folder of everything durable", None, None),
    "host": ("address to listen on", None, None),
    "port": ("TCP port of the main listener; 0 takes a free one", 0, 65535),
    "domain": ("endpoints are reached at <name>.<domain> too", None, None),
    "tls_cert": ("PEM file of the certificate and its chain: all ports speak HTTPS; read again on SIGHUP", None, None),
    "tls_key": ("PEM file of its key, without a password", None, None),
    "auth": (
        "who needs a token: auto (all callers off the loopback address, and on it once a token was made), on, "
        "off (nobody; on the loopback address only); an endpoint's own `access` comes before it",
        None,
        None,
    ),
    "open_endpoints": (
        "whether an endpoint that is deployed with `access: false` asks nobody for a token off the loopback address "
        "too; else it is there as the platform is",
        None,
        None,
    ),
    "max_body": ("bytes of one call's body; above it 413 (a bento that is uploaded: 2 GiB)", 1, 1 << 40),
    "store": ("where pushed bentos and models are kept: s3://bucket/prefix; unset: a folder in data", None, None),
    "store_endpoint": ("URL of an S3 server of one's own; unset: AWS. Credentials are AWS's usual ones", None, None),
    "max_upload": ("bytes of one model that is pushed (of a bento: 2 GiB)", 1 << 20, 1 << 44),
    "answer_within": ("seconds until the first byte of an answer; later is 504", 0.1, 86400),
    "log_level": ("debug, info, warning or error", None, None),
    "log_format": ("the router's log: text, or json (one object a line)", None, None),
    "ports_from": ("deployments of the bentoml command line get a port of their own, from this one on", 1024, 65000),
    "respect_scaling_min": (
        "whether a deployment's 1 and 1 replicas mean that one is kept awake: the bentoml command line sends that too "
        "where its user said nothing, so that it is taken as 0 to 1",
        None,
        None,
    ),
    "environment_idle": (
        "seconds that an environment's fork-server lives unused, with no replica or template of it; the next start "
        "of one makes it again",
        1,
        604800,
    ),
    "otlp_endpoint": (
        "URL of an OpenTelemetry collector, such as http://127.0.0.1:4318, which gets a span of each call (OTLP over "
        "HTTP, from the extra `otel`); unset: none is made",
        None,
        None,
    ),
    "memory": ("bytes that all endpoints may take together; unset: 0.8 of the machine's", 1 << 20, 1 << 50),
    "engine": (
        "Unix socket of the container engine; unset: $CONTAINER_HOST, $DOCKER_HOST, Podman's or Docker's usual one",
        None,
        None,
    ),
    "build_network": ("network that images are built in, by the engine's name for it; unset: its default", None, None),
    "idle_after": ("seconds from the end of the last call until the replica is stopped", 0, 604800),
    "start_within": ("seconds from the start of a replica until it must be ready", 0.1, 7200),
    "queue_within": ("seconds that a call stays parked at most", 0, 7200),
    "concurrency": ("calls at once in one replica; 0: what the service itself allows", 0, 100_000),
    "max_queue": ("parked calls; one more is answered 429", 0, 1_000_000),
    "drain_within": ("seconds from draining until what still runs is cut off", 0, 7200),
    "stop_within": ("seconds from TERM until KILL", 0, 600),
    "max_replicas": ("replicas at most", 1, 64),
    "min_replicas": ("replicas that are kept awake", 0, 64),
    "idle_after_last": ("the same for the last replica of an endpoint; unset: idle_after", 0, 604800),
    "scale_window": ("seconds: surplus replicas go when fewer were needed all that time", 1, 3600),
    "sleep": (
        "what stays while it sleeps: deep or stop (nothing), template (a loaded process to fork from); of containers: "
        "pause (the replica, frozen), fork (a container to fork in); auto: template or fork, while memory allows",
        None,
        None,
    ),
    "keep_for": ("seconds that this stays unused, then it goes too; 0: as long as the memory allows", 0, 31536000),
    "launcher": ("process, or container: on Podman or Docker, with its own packages and limits", None, None),
    "image": (
        "that containers are made of, such as one of `bentoml containerize`; unset: built from the bento",
        None,
        None,
    ),
    "egress": ("whether a container reaches the network; else nothing but its calls reaches it", None, None),
    "gpu": ("GPUs handed to each container", 0, 64),
    "cpus": ("processors that a container may use; 0: all", 0, 4096),
    "pids_limit": ("processes and threads in a container", 16, 1_000_000),
    "memory_limit": ("bytes of one replica, as measured; above it, it is replaced; 0: any number", 0, 1 << 50),
    "rate": ("calls a second; one more is answered 429, and starts nothing; 0: any number", 0, 1_000_000),
    "burst": ("calls at once after a rest, within the rate; unset: the rate, at least 1", 1, 1_000_000),
    "quota": ("calls a day (UTC); one more is answered 429, and starts nothing; 0: any number", 0, 1_000_000_000),
    "threads": ("intra-op threads of a replica, at most the cores divided by max_replicas", 1, 256),
}


@dataclass(frozen=True, slots=True)
class Config:
    """What the router runs with; `settings` are what an endpoint gets where its deploy names nothing else."""

    data: Path = field(default_factory=lambda: Path("~/.local/share/torpor").expanduser())
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    domain: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    auth: str = "auto"
    open_endpoints: bool = False
    max_body: int = 1 << 30
    store: str = ""
    store_endpoint: str | None = None
    max_upload: int = 64 << 30
    answer_within: float = 600.0
    log_level: str = "info"
    log_format: str = "text"
    ports_from: int = 7400
    respect_scaling_min: bool = False
    environment_idle: float = 3600.0
    otlp_endpoint: str | None = None
    memory: int | None = None
    engine: Path | None = None
    build_network: str | None = None
    settings: Settings = field(default_factory=Settings)

    def limits(self) -> Limits:
        return Limits(max_body_bytes=self.max_body, answer_within=self.answer_within)

    def opens(self) -> bool:
        """Whether `access: false` opens an endpoint to everybody."""
        return self.open_endpoints or loopback(self.host)

    def shown(self) -> dict[str, Any]:
        """As JSON: `torpor config`."""
        top = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "settings"}
        paths = {name: str(value) for name, value in top.items() if isinstance(value, Path)}
        return {**top, **paths, "settings": dataclasses.asdict(self.settings)}


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Raises InvalidConfig with every fault, each with its place, value and bound."""
    faults: list[str] = []
    values: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if path is not None:
        _from_file(path, values, settings, faults)
    for name, text in env.items():
        if name.startswith(PREFIX) and name not in FOREIGN:
            key = name.removeprefix(PREFIX).lower()
            _keep(key, text, f"${name}", values, settings, faults)
    for key, value in flags.items():
        if value is not None:
            _keep(key, value, f"--{key.replace('_', '-')}", values, settings, faults)
    if not loopback(str(values.get("host", "127.0.0.1"))) and values.get("auth") == "off":
        faults.append(f"auth = 'off' has to be auto or on where host = {values['host']!r} is no loopback address")
    if ("tls_cert" in values) != ("tls_key" in values):
        faults.append("tls_cert and tls_key have to be set both, or neither")
    faults += store_faults(values.get("store", ""), values.get("store_endpoint"))
    faults += collector_faults(values.get("otlp_endpoint"))
    faults += rung_faults(Settings(**settings))
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise InvalidConfig(f"the configuration has {len(faults)} fault(s):{lines}\nsee docs/config.md for all keys")
    return Config(**values, settings=Settings(**settings))


def parse_settings(given: Mapping[str, Any], defaults: Settings) -> Settings:
    """A deploy's settings over the defaults. Raises InvalidConfig with every fault."""
    faults: list[str] = []
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key == "port":
            _keep_value(key, value, f"settings.{key}", (1, 65535), values, faults)
        elif key in _SETTINGS:
            _keep(key, value, f"settings.{key}", {}, values, faults)
        else:
            faults.append(f"settings.{key} is not a setting{_meant(key, [*_SETTINGS, 'port'])}")
    wanted = dataclasses.replace(defaults, **values)
    faults += rung_faults(wanted)
    if faults:
        raise InvalidConfig("; ".join(faults) + "\nsee docs/config.md for the settings and their bounds")
    return wanted


_CONFIG = tuple(f.name for f in dataclasses.fields(Config) if f.name != "settings")
_SETTINGS = tuple(f.name for f in dataclasses.fields(Settings) if f.name != "port")
_KINDS: dict[str, str] = {f.name: str(f.type) for kind in (Config, Settings) for f in dataclasses.fields(kind)}


def _from_file(path: Path, values: dict[str, Any], settings: dict[str, Any], faults: list[str]) -> None:
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        faults.append(f"{path}: {error.strerror}")
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{path}: {error}")
        return
    for key, value in tables.items():
        if key == "settings" and isinstance(value, dict):
            for inner, setting in value.items():
                if inner in _SETTINGS:
                    _keep(inner, setting, f"{path}: settings.{inner}", {}, settings, faults)
                else:
                    faults.append(f"{path}: settings.{inner} is not a setting{_meant(inner, _SETTINGS)}")
        elif key in _CONFIG:
            _keep(key, value, f"{path}: {key}", values, settings, faults)
        else:
            faults.append(f"{path}: {key} is not a key{_meant(key, (*_CONFIG, 'settings'))}")


def _keep(
    key: str, value: Any, place: str, values: dict[str, Any], settings: dict[str, Any], faults: list[str]
) -> None:
    if key in _CONFIG:
        target = values
    elif key in _SETTINGS:
        target = settings
    else:
        faults.append(f"{place} is not a key{_meant(key, (*_CONFIG, *_SETTINGS))}")
        return
    _keep_value(key, value, place, BOUNDS[key][1:], target, faults)


def _keep_value(
    key: str,
    value: Any,
    place: str,
    bounds: tuple[float | None, float | None],
    target: dict[str, Any],
    faults: list[str],
) -> None:
    try:
        parsed = _parse(key, value)
    except (ValueError, TypeError):
        faults.append(f"{place} = {value!r} has to be {_KINDS[key].removesuffix(' | None')}")
        return
    least, most = bounds
    if least is not None and most is not None and not least <= parsed <= most:
        faults.append(f"{place} = {value!r} has to be from {least:g} to {most:g}")
    elif key in CHOICES and parsed not in CHOICES[key]:
        faults.append(f"{place} = {value!r} has to be one of {', '.join(CHOICES[key])}")
    else:
        target[key] = parsed


def _parse(key: str, value: Any) -> Any:
    """The value in its kind; text (of the environment) is read, anything else must be of the kind already."""
    kind = _KINDS[key]
    if kind == "bool":
        return truth(value)
    if isinstance(value, bool):
        raise TypeError
    if kind.startswith("Path"):
        if not value:
            raise ValueError
        return Path(str(value)).expanduser().absolute()
    if kind.startswith("str"):
        if not isinstance(value, str) or not (value or key == "image"):  # "": as if it were not said
            raise TypeError
        return value
    if kind.startswith("int"):
        if not isinstance(value, str | int):
            raise TypeError
        return int(value)
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def truth(value: Any) -> bool:
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise ValueError
    return found


def _meant(key: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def store_faults(store: str, endpoint: str | None) -> list[str]:
    """What is wrong with where pushed things are kept."""
    faults = []
    if store and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w!.*'()/-]*)?", store):
        faults.append(f"store = {store!r} has to be s3://bucket or s3://bucket/prefix")
    if endpoint is not None and not re.fullmatch(r"https?://[^\s/?#@]+/?", endpoint):
        faults.append(f"store_endpoint = {endpoint!r} has to be http://host:port or https://host:port")
    if endpoint is not None and not store:
        faults.append("store_endpoint is for a store in S3: set store = 's3://bucket/prefix' too")
    return faults


def collector_faults(url: str | None) -> list[str]:
    if url is None or re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        return []
    return [f"otlp_endpoint = {url!r} has to be http://host:port or https://host:port"]


def rung_faults(settings: Settings) -> list[str]:
    """What of a launcher's settings another launcher does not have."""
    faults = []
    known = RUNGS[settings.launcher]
    if settings.sleep not in known:
        faults.append(
            f"sleep = {settings.sleep!r} has to be one of {', '.join(known)} where launcher is {settings.launcher}"
        )
    if settings.launcher == "process" and (settings.image or settings.egress or settings.gpu or settings.cpus):
        faults.append("image, egress, gpu and cpus are for containers: set launcher = 'container' too")
    if settings.gpu and settings.sleep == "fork":
        faults.append("sleep = 'fork' has to be auto, stop or pause with a gpu: a container that is kept has no card")
    return faults


def loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def page() -> str:
    """`docs/config.md`."""
    lines = [
        "# Configuration",
        "",
        "Read from `torpor.toml` (`torpor up --config FILE`), then from `TORPOR_<KEY>` in the environment, then from "
        "flags; the later wins. Unknown keys are errors, and all faults are reported at once. This page is printed by "
        "`python -m router.config`.",
        "",
        "## The router",
        "",
        *_table(Config(), _CONFIG),
        "",
        "## An endpoint",
        "",
        "In the table `[settings]` of the file, or with a deploy: `torpor deploy ... --set idle_after=60`. "
        "A deploy may also set `port`, the endpoint's own port.",
        "",
        *_table(Settings(), _SETTINGS),
        "",
    ]
    return "\n".join(lines)


def _table(defaults: Any, keys: tuple[str, ...]) -> list[str]:
    rows = ["| key | default | bounds | |", "|---|---|---|---|"]
    for key in keys:
        text, least, most = BOUNDS[key]
        default = "~/.local/share/torpor" if key == "data" else getattr(defaults, key)
        bounds = f"{least:g} to {most:g}" if least is not None and most is not None else ""
        rows.append(f"| `{key}` | {'' if default in (None, '') else f'`{default}`'} | {bounds} | {text} |")
    return rows


if __name__ == "__main__":
    print(page(), end="")
