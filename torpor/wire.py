"""The wire contract: the names that client, router and replica share. Imports nothing heavy."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

DEFAULT_PORT = 7300
API = "/torpor/v1"  # the control plane's prefix
KNOWN = f"{API}/known"  # /torpor/v1/known/<name>/<path>: what the control plane says of an endpoint without waking it
ENDPOINTS = "/endpoints"  # /endpoints/<name>/<path> reaches <path> of that endpoint

# A name is a DNS label, so that <name>.<domain> works.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

# Headers. A caller may send the first three; the router sets the others on an answer.
REQUEST_ID = "X-Request-Id"
QUEUE_WITHIN = "X-Torpor-Queue-Within"  # seconds the caller is willing to stay parked
TOKEN = "Authorization"  # Bearer <token>
OWN_TOKEN = "X-Torpor-Token"  # <token>: for a call whose Authorization is the endpoint's own
CLOUD_TOKEN = "X-YATAI-API-TOKEN"  # <token>: as the bentoml command line sends it
HOLDER = "X-Torpor-Holder"  # SHA-256 of the token in hex: the router tells its control plane, callers cannot
SESSION = "X-Torpor-Session"  # likewise, of a browser's session
COLD_START = "X-Torpor-Cold-Start"  # "true" when this call waited for a start, else "false"
SERVER_TIMING = "Server-Timing"  # phases in milliseconds: park, start, load, queue, infer, router
ENDPOINT_STATE = "X-Torpor-State"

# What speaks BentoCloud's API: its errors are one sentence of plain text.
CLOUD_PATHS = ("/api/", "/ws/")

SESSION_COOKIE = "torpor_session"

# A token's text: `tp_` and 32 random bytes.
TOKEN_TEXT = re.compile(rb"tp_[A-Za-z0-9_-]{43}")

# The longest Retry-After: above it the OpenAI SDK stops retrying (openai-python, _base_client.py).
RETRY_AFTER_MAX = 120.0


class State(StrEnum):
    """A replica's states, and (through its replicas) an endpoint's: see `docs/design.md`, "A replica's life"."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"  # frozen: it sleeps, and goes on where it was
    DRAINING = "draining"
    STOPPING = "stopping"


class EndpointState(StrEnum):
    """What `torpor ls` shows for an endpoint."""

    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    FALLING_ASLEEP = "falling asleep"
    FAILED = "failed"  # the last start failed; a call tries again
    TERMINATED = "terminated"  # kept, and not on the air: `torpor start`


class Rung(StrEnum):
    """What of an endpoint is there: the higher, the sooner it answers, and the more memory it takes."""

    WARM = "warm"  # a replica runs, or starts
    TEMPLATE = "template"  # a process with the service loaded, to fork from
    FORK = "fork"  # a container with the imports done, to fork in
    PAUSE = "pause"  # the replica, frozen
    STOP = "stop"  # nothing


class RungView(TypedDict):
    """The rung on which an endpoint is, in words."""

    name: str
    since: float | None  # seconds since the epoch, None: since the router has started
    why: str
    next: str  # what becomes of it, and when
    ladder: list[str]  # the rungs that this endpoint has, from warm to stop


class ReplicaView(TypedDict):
    """One replica as the control plane shows it."""

    id: str
    state: str
    pid: int | None
    in_flight: int
    memory: int | None  # bytes, PSS
    cards: list[str]  # its graphics cards, by UUID
    gpu_memory: int | None  # bytes on them, None: without cards
    phases: dict[str, float]  # seconds
    since: float  # seconds since the epoch


class TemplateView(TypedDict):
    """The loaded process from which a sleeping endpoint wakes."""

    id: str
    state: str  # loading, kept, ending
    memory: int  # bytes, PSS


class RuleView(TypedDict):
    """How calls come to a variant: `docs/protocols.md`, "Variants"."""

    kind: str  # random, header, query, address, shadow
    by: str  # the header or the query's key
    weight: int  # percent
    watch: NotRequired[dict[str, Any]]  # bounds that it is held to, where it is


class VariantView(TypedDict):
    """A revision beside the live one."""

    name: str
    revision: int
    bento: str
    rule: RuleView
    state: str  # as an endpoint's
    url: str  # http://host:port/endpoints/<name>~<variant>
    calls: int  # since the router has started, or the variant was made


class RevisionView(TypedDict):
    """One revision of an endpoint: `GET /torpor/v1/endpoints/<name>/revisions`."""

    number: int
    bento: str
    created_at: float
    creator: str  # the name of the token that deployed it, "" where none was asked for
    state: list[str]  # live or terminated, and names of variants
    env: list[str]  # names of the variables: values may be secret
    secrets: list[str]
    access: bool | None
    settings: dict[str, Any]  # those that differ from the platform's


class EventView(TypedDict):
    """A line of an endpoint's history."""

    at: float  # seconds since the epoch
    kind: str
    text: str


class EndpointView(TypedDict):
    """One endpoint as the control plane shows it: `GET /torpor/v1/endpoints/<name>`."""

    name: str
    state: str
    revision: int
    bento: str
    url: str  # http://host:port/endpoints/<name>
    own_url: str | None  # the endpoint's own port, for clients that drop a path prefix
    created_at: float
    calls: int
    cold_starts: int
    in_flight: int
    parked: int
    last_call_at: float | None
    replicas: list[ReplicaView]
    rung: RungView
    template: TemplateView | None
    no_template: str | None  # why it has none, where it cannot have one
    settings: dict[str, Any]
    learned: dict[str, Any]  # modules to preload, start times, provider
    schema: dict[str, Any]
    last_error: str | None
    variants: list[VariantView]
    access: bool | None  # whether its callers need a token, None: what the platform says
    secrets: list[str]  # names
    terminated: bool


class TokenView(TypedDict):
    """One token as the control plane shows it; its text is told once, when it is made. Instants as in EndpointView."""

    id: str
    name: str
    scopes: list[str]  # admin, call, call:<endpoint>
    state: str  # valid, expired, revoked
    created_at: float
    expires_at: float | None
    last_used_at: float | None


class SecretView(TypedDict):
    """One secret as the control plane shows it: without its values."""

    name: str
    type: str  # env, file, mountfile
    stage: str  # build, runtime, all
    path: str  # of files
    keys: list[str]
    description: str
    creator: str  # the name of the token that made it, "" where none was asked for
    created_at: float
    updated_at: float
    users: list[str]  # endpoints whose live revisions have it


class MadeToken(TokenView):
    """The answer to its making."""

    token: str  # its text
