"""What exists: the endpoints by name, and which of them a call's address means. Holds no process and no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from router.core.refusals import terminated, unknown
from router.core.settings import Settings
from router.core.split import BETWEEN, Split, Variant, endpoint_of, line_of, split_of
from torpor.errors import Conflict
from torpor.wire import ENDPOINTS

# Reads that the control plane answers from what it knows: they never wake a replica and never keep one warm.
QUIET = frozenset((b"/livez", b"/readyz", b"/healthz", b"/schema.json", b"/metrics"))
PREFIXED = QUIET - {b"/schema.json"}  # those that BentoML has under a service's path prefix
_PREFIX = ENDPOINTS.encode() + b"/"


@dataclass(frozen=True, slots=True)
class Learned:
    """What a revision's first start taught: modules to preload, the service's schema, facts, seconds by phase."""

    modules: tuple[str, ...] = ()
    schema: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        """Bytes (PSS) of the replica that started first, 0 where it was not measured."""
        return int(self.facts.get("memory", 0))


@dataclass(frozen=True, slots=True)
class Registered:
    """An endpoint with its live revision, as the store keeps it. Instants are in seconds since the epoch.

    A variant's has the name of its line. `spec`: what the deploy said beside, such as `secrets` and `access`.
    """

    name: str
    revision: int
    bento: str
    env: dict[str, str]
    settings: Settings
    created_at: float
    learned: Learned = Learned()
    calls: int = 0
    cold_starts: int = 0
    last_call_at: float | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    creator: str = ""
    uid: str = ""
    deployed_at: float = 0.0  # when the revision was made
    terminated: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(self.spec.get("secrets") or ())

    @property
    def access(self) -> bool | None:
        """Whether its callers need a token; None: what the platform says."""
        return self.spec.get("access")


@dataclass(frozen=True, slots=True)
class Revision:
    """What a deploy asked for, as its row tells. Instants are in seconds since the epoch."""

    number: int
    bento: str
    created_at: float
    creator: str  # the name of the token that deployed it, "" where none was asked for
    env: dict[str, str]
    settings: dict[str, Any]
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What a deploy writes, in one transaction."""

    name: str
    new: tuple[Registered, ...] = ()  # revisions that were not there before
    live: Registered | None = None  # the live one from now on; None: it stays
    variants: tuple[Variant, ...] | None = None  # all of them from now on; None: they stay

    @classmethod
    def of(cls, entry: Registered) -> Change:
        """A new revision is the live one."""
        return cls(entry.name, (entry,), entry)


@dataclass(frozen=True, slots=True)
class Fault:
    """A deploy that failed. `revision`: the live one then, 0 for none; `asked`: what it had asked for."""

    name: str
    uid: str
    created_at: float  # seconds since the epoch
    revision: int
    text: str
    asked: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """What a call's address means: the endpoint, the path that its replica sees, and whether it is a quiet read."""

    endpoint: str
    path: bytes
    quiet: bool
    split: Split | None = None  # its calls are shared out


class Catalog:
    """The live endpoints. `domain`: `<name>.<domain>` reaches an endpoint, as `<name>.localhost` always does.

    A variant is found by the name of its line: at `/endpoints/<name>~<variant>` and `<name>--<variant>.<domain>`.
    """

    def __init__(self, domain: str | None = None) -> None:
        self.endpoints: dict[str, Registered] = {}
        self.beside: dict[str, Registered] = {}  # the variants' revisions, by their lines
        self.variants: dict[str, tuple[Variant, ...]] = {}  # by endpoint
        self.terminated: dict[str, Registered] = {}  # kept, and not on the air
        self._splits: dict[str, Split] = {}
        self.changed: Callable[[], None] = lambda: None  # told after each change of what is on the air
        self.closed: set[str] = set()  # the lines whose callers need a token whatever the platform asks
        self.changes = 0  # how often what `resolve` finds may have changed
        self._domains = tuple(f".{d}".encode() for d in ("localhost", domain) if d)
        self._ports: dict[int, str] = {}
        self._quiet: dict[str, frozenset[bytes]] = {}

    def put(self, entry: Registered) -> None:
        """Registers an endpoint or its next revision. Raises Conflict for a port that another endpoint has."""
        self.check_port(entry.name, entry.settings.port)
        self.drop_port(entry.name)
        self.changes += 1
        self.endpoints[entry.name] = entry
        self.terminated.pop(entry.name, None)
        self._quiet[entry.name] = quiet_of(entry)
        if entry.settings.port is not None:
            self._ports[entry.settings.port] = entry.name
        self._close(entry)
        self.changed()

    def vary(self, name: str, variants: tuple[Variant, ...], entries: dict[str, Registered]) -> list[str]:
        """All variants of an endpoint from now on; the lines that are none any more. `entries`: by line, those that
        are new or another revision now.
        """
        lines = {line_of(name, each.name) for each in variants}
        gone = [line for line in self.beside if endpoint_of(line) == name and line not in lines]
        for line in gone:
            del self.beside[line], self._quiet[line]
            self.closed.discard(line)
        for line, entry in entries.items():
            self.beside[line] = entry
            self._quiet[line] = quiet_of(entry)
            self._close(entry)
        self.changes += 1
        self.variants.pop(name, None)
        self._splits.pop(name, None)
        if variants:
            self.variants[name] = variants
            if (split := split_of(name, variants)) is not None:
                self._splits[name] = split
        self.changed()
        return gone

    def _close(self, entry: Registered) -> None:
        if entry.access:
            self.closed.add(entry.name)
        else:
            self.closed.discard(entry.name)

    def access(self, line: str) -> bool | None:
        """Whether who calls a line needs a token, None: as the platform asks. Of what a variant and its endpoint say
        the stricter counts.
        """
        if (entry := self.endpoints.get(line)) is not None:  # nearly always
            return entry.access
        said = {self.named(line).access, self.named(endpoint_of(line)).access}
        return True if True in said else None if None in said else False

    def terminate(self, name: str) -> None:
        """Off the air, its port kept."""
        self.changes += 1
        self.terminated[name] = replace(self.endpoints.pop(name), terminated=True)
        self._quiet.pop(name)
        self.closed.discard(name)
        self.vary(name, (), {})

    def named(self, name: str) -> Registered:
        """An endpoint, or a variant by its line. Raises EndpointNotFound."""
        entry = self.endpoints.get(name) or self.beside.get(name)
        if entry is None:
            raise terminated(name) if name in self.terminated else unknown(name)
        return entry

    def known(self, name: str) -> Registered:
        """An endpoint, terminated or not; no variant. Raises EndpointNotFound."""
        entry = self.terminated.get(name) or self.endpoints.get(name)
        if entry is None:
            raise unknown(name)
        return entry

    def ports(self) -> set[int]:
        """Those that endpoints have of their own."""
        return set(self._ports)

    def check_port(self, name: str, port: int | None) -> None:
        holder = self._ports.get(port) if port is not None else None
        if holder not in (None, name):
            raise Conflict(f"port {port} belongs to endpoint {holder!r}\nchoose another port, or remove {holder!r}")

    def remove(self, name: str) -> None:
        self.drop_port(name)
        self.changes += 1
        self.closed.discard(name)
        self.vary(name, (), {})
        self.endpoints.pop(name, None)
        self.terminated.pop(name, None)
        self._quiet.pop(name, None)

    def drop_port(self, name: str) -> None:
        self._ports = {port: holder for port, holder in self._ports.items() if holder != name}

    def using(self, secret: str) -> list[str]:
        """The endpoints of which the live revision, or one beside it, has a secret."""
        entries = (*self.endpoints.values(), *self.beside.values())
        return sorted({endpoint_of(entry.name) for entry in entries if secret in entry.secrets})

    def resolve(self, path: bytes, host: bytes, port: int | None) -> Address | None:
        """The endpoint that an address means: 1 its own port, 2 its path, 3 its host; None: the control plane.

        Raises EndpointNotFound where the address names an endpoint that is not there.
        """
        if port is not None and (name := self._ports.get(port)) is not None:  # 1
            return self._address(name, path)
        if path.startswith(_PREFIX):  # 2
            end = len(path)
            for mark in (b"/", b"?"):
                at = path.find(mark, len(_PREFIX), end)
                end = at if at >= 0 else end
            name, rest = path[len(_PREFIX) : end].decode("latin-1"), path[end:]
            if rest[:1] != b"/":  # the control plane sends the caller to the path with its slash
                return Address(self.named(name).name, rest, True)
            return self._address(name, rest)
        label, dot, domain = host.partition(b".")  # 3
        if dot and label and (dot + domain.partition(b":")[0].lower()) in self._domains:
            name = label.decode("latin-1").lower()
            variant = BETWEEN.join(name.rpartition("--")[::2])
            return self._address(variant if name not in self._quiet and variant in self.beside else name, path)
        return None

    def _address(self, name: str, path: bytes) -> Address:
        quiet = self._quiet.get(name)
        if quiet is None:
            raise terminated(name) if name in self.terminated else unknown(name)
        return Address(name, path, path.partition(b"?")[0] in quiet, self._splits.get(name))


def quiet_of(entry: Registered) -> frozenset[bytes]:
    prefix = str(entry.learned.facts.get("path_prefix", "")).encode()
    return QUIET | {prefix + path for path in PREFIXED}
