"""What the control plane reads from a request, checked before anything changes."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request as HTTPRequest

from router.config import parse_settings
from router.core.access import notes
from router.core.settings import Settings
from router.core.split import Rule
from router.shell.request import Request
from torpor.errors import BadRequest, BodyTooLarge

JSON_MAX = 1 << 20  # bytes
TAIL_DEFAULT = 100
TAIL_MAX = 10_000
DEPLOY = ("name", "bento", "env", "settings", "secrets", "access", "variant", "rule")
RULE = ("kind", "by", "weight", "watch")


async def read_object(request: HTTPRequest, most: int = JSON_MAX) -> dict[str, Any]:
    """The body as a JSON object. `most`: its bytes."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BodyTooLarge(f"the body is longer than {most} bytes\nsend less")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}\nsend one JSON object") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body is a JSON {type(value).__name__}\nsend one JSON object")
    return value


def read_deploy(body: dict[str, Any], defaults: Settings, creator: str = "", opens: bool = True) -> Request:
    """A deploy's request. `opens`: an endpoint may ask nobody for a token. Raises BadRequest, or InvalidConfig with all
    faults.
    """
    unknown = sorted(set(body) - set(DEPLOY))
    if unknown:
        raise BadRequest(f"unknown keys: {', '.join(unknown)}\na deploy takes {', '.join(DEPLOY)}")
    name, bento = body.get("name"), body.get("bento")
    if not isinstance(name, str) or not isinstance(bento, str):
        raise BadRequest("`name` and `bento` have to be strings\nname the endpoint and the tag of an uploaded bento")
    settings = body.get("settings", {})
    if not isinstance(settings, dict):
        raise BadRequest("`settings` has to be an object\nsee docs/config.md for its keys")
    variant, rule = body.get("variant") or "", body.get("rule")
    if not isinstance(variant, str) or (rule is not None and not variant):
        raise BadRequest(
            "`variant` has to be a string, and a `rule` needs one\nname what is deployed beside the live revision"
        )
    spec = read_spec(body)
    return Request(
        name=name,
        bento=bento,
        env=read_env(body.get("env", {})),
        settings=parse_settings(settings, defaults),
        spec=spec,
        creator=creator,
        variant=variant,
        rule=None if rule is None else read_rule(rule),
        notes=notes(spec["access"], opens),
    )


def read_env(env: Any) -> dict[str, str]:
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise BadRequest("`env` has to be an object of strings\nwrite numbers as strings")
    bad = [key for key, value in env.items() if not key or "=" in key or "\0" in key + value]
    if bad:
        raise BadRequest(f"these cannot be environment variables: {bad}\nuse names without '=' and NUL")
    return env


def read_spec(body: dict[str, Any]) -> dict[str, Any]:
    """What a revision keeps beside: names of secrets, whether its callers need a token (None: as the platform asks)."""
    secrets, access = body.get("secrets") or [], body.get("access")
    if not isinstance(secrets, list) or not all(isinstance(name, str) for name in secrets):
        raise BadRequest("`secrets` has to be a list of strings\nname secrets of the platform")
    if access is not None and not isinstance(access, bool):
        raise BadRequest(
            f"access={access!r}\nuse true (callers need a token), false (none) or null (as the platform asks)"
        )
    return {"secrets": secrets, "access": access}


def read_rule(rule: Any) -> Rule:
    """How calls come to a variant; its bounds are the core's. Raises BadRequest."""
    unknown = sorted(set(rule) - set(RULE)) if isinstance(rule, dict) else ["it is no object"]
    if unknown:
        raise BadRequest(f"a rule is not valid: {', '.join(unknown)}\na rule has {', '.join(RULE)}")
    kind, by, weight = rule.get("kind"), rule.get("by") or "", rule.get("weight", 0)
    if not isinstance(kind, str) or not isinstance(by, str):
        raise BadRequest(
            "a rule's `kind` and `by` have to be strings\nname the kind, and the header or the query's key"
        )
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise BadRequest(f"a rule's weight is {weight!r}\nuse a whole number of percent")
    watch = rule.get("watch") or {}
    if not isinstance(watch, dict):
        raise BadRequest(f'a rule\'s `watch` is {watch!r}\nuse an object, see docs/protocols.md, "Variants"')
    return Rule(kind, by, weight, watch)


def read_number(body: dict[str, Any]) -> int | None:
    """The revision to go back to, None for the one before. Raises BadRequest."""
    number = body.get("revision")
    if set(body) - {"revision"} or not (number is None or (isinstance(number, int) and not isinstance(number, bool))):
        raise BadRequest('a rollback takes a revision\'s number, or null for the one before\nsend {"revision": 3}')
    return number


def read_variant(body: dict[str, Any]) -> str:
    """The variant that is promoted. Raises BadRequest."""
    variant = body.get("variant")
    if set(body) != {"variant"} or not isinstance(variant, str):
        raise BadRequest('a promotion takes a variant\'s name\nsend {"variant": "canary"}')
    return variant


def read_limit(request: HTTPRequest) -> int:
    value = request.query_params.get("limit", str(TAIL_DEFAULT))
    if not value.isdigit() or not 0 < int(value) <= TAIL_MAX:
        raise BadRequest(f"limit={value!r}\nuse a number of events from 1 to {TAIL_MAX}")
    return int(value)


def read_flag(request: HTTPRequest, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name}={value!r}\nuse true or false")
    return value in ("true", "1")


def read_tail(request: HTTPRequest) -> int:
    value = request.query_params.get("tail", str(TAIL_DEFAULT))
    if not value.isdigit() or int(value) > TAIL_MAX:
        raise BadRequest(f"tail={value!r}\nuse a number of lines from 0 to {TAIL_MAX}")
    return int(value)
