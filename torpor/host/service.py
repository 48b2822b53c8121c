"""Loading a bento's service the way BentoML's own worker does (1.4.39, `_bentoml_impl/worker/service.py`)."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bentoml._internal.log import configure_server_logging

from torpor.host import warm


class Unservable(Exception):
    """The service cannot be served; the message is one sentence."""


def load(target: str, folder: str, proven: bool = False) -> Any:
    """The service object that `module:attribute` names, with BentoML's configuration and context set up for it.

    `proven` says that it was loaded before, unchanged: its configuration is not checked again.
    """
    from _bentoml_sdk import Service
    from bentoml._internal.context import server_context
    from bentoml._internal.utils.uri import join_paths

    os.chdir(folder)
    sys.path.insert(0, folder)
    module_name, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module_name)
    if attribute:
        for part in attribute.split("."):
            found = getattr(found, part)
    else:
        found = _only_service(found)
    if not isinstance(found, Service):
        raise Unservable(f"{target} is a {type(found).__name__}, not a BentoML service")
    if found.has_custom_command():
        raise Unservable(f"{target} starts a command of its own, which a replica does not run")
    missing = [env.name for env in found.envs if env.name not in os.environ and env.value is None]
    if missing:
        raise Unservable(f"the environment variables {', '.join(missing)} are not set")
    for env in found.envs:
        os.environ.setdefault(env.name, env.value or "")
    if proven:
        warm.trust_configuration()
    found.inject_config()
    server_context.service_type = "entry_service"
    server_context.service_name = found.name
    server_context.service_routes = [join_paths(found.path_prefix, api.route) for api in found.apis.values()]
    server_context.bento_name = found.name
    server_context.bento_version = "not available"
    server_context.worker_index = 1
    return found


def _only_service(module: Any) -> Any:
    from _bentoml_sdk import Service

    services = [value for value in vars(module).values() if isinstance(value, Service)]
    inner = {id(dep.on) for service in services for dep in service.dependencies.values()}
    outer = [service for service in services if id(service) not in inner]
    if len(outer) != 1:
        raise Unservable(f"{module.__name__} holds {len(outer)} services; name one as {module.__name__}:Name")
    return outer[0]


def log_to_stdout() -> None:
    """BentoML's own logging, which the fork-server has set up, at the levels of this replica's environment."""
    if any(name in os.environ for name in warm.LOG_LEVELS):
        configure_server_logging()  # type: ignore[no-untyped-call]  # BentoML's
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def learned(folder: str, before: set[str]) -> list[str]:
    """The modules imported since `before` that a fork-server could import for the next start, in their order.

    Those of the service's own folder are left out: the next revision's may differ.
    """
    own = os.path.realpath(folder) + os.sep
    out = []
    for name, module in list(sys.modules.items()):
        if name in before or getattr(module, "__name__", "") != name:  # an alias, such as BentoML's LazyLoader makes
            continue
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if origin in (None, "built-in", "frozen"):
            continue
        if not os.path.realpath(str(origin)).startswith(own):
            out.append(name)
    return out


def open_early(sessions: Sequence[dict[str, Any]]) -> None:
    """Begins with the sessions that this service opened at an earlier start; see `torpor.onnx.open_early`."""
    if sessions:
        importlib.import_module("torpor.onnx").open_early(sessions)


def facts() -> dict[str, Any]:
    """What the service's sessions run on; empty where it has none."""
    onnx = sys.modules.get("torpor.onnx")
    opened = list(onnx.opened()) if onnx is not None else []
    if onnx is not None:
        onnx.forget_early()
    if not opened:
        return {"threads": len(os.listdir("/proc/self/task"))}
    providers = opened[0].get("providers") or ["unknown"]
    return {"provider": providers[0], "sessions": opened, "threads": len(os.listdir("/proc/self/task"))}


def finish_sessions() -> None:
    """Has the sessions packed that were opened in a hurry and that no call has run yet."""
    onnx = sys.modules.get("torpor.onnx")
    if onnx is not None:
        onnx.finish_hurried()


def last_lines(path: Path, lines: int = 20) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
