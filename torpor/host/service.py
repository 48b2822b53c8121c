"""Loading a bento's service the way BentoML's own worker does (1.4.39, `_bentoml_impl/worker/service.py`)."""

from __future__ import annotations

import compileall
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _bentoml_impl.tasks import Sqlite3Store
from _bentoml_sdk import Service
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.log import configure_server_logging
from bentoml._internal.service.loader import _do_import
from bentoml._internal.service.loader import load as load_service
from bentoml._internal.utils.uri import join_paths
from bentoml.exceptions import BentoMLException, ImportServiceError

from torpor.host import warm


class Unservable(Exception):
    """The service cannot be served; the message is one sentence."""


def load(target: str, folder: str, bento: str | None = None, proven: bool = False) -> Any:
    """The service object that `module:attribute` names, with BentoML's configuration and context set up for it.

    `bento`: the bento's folder; None for a service that is not packaged. `proven` says that it was loaded before,
    unchanged: its configuration is not checked again. Raises Unservable.
    """
    server_context.worker_index = 1  # before the import: in a worker `bentoml.importing()` lets no module be missing
    found = _imported(target, folder, bento)
    if not isinstance(found, Service):
        raise Unservable(_no_service(target, found))
    if found.has_custom_command():
        raise Unservable(f"{target} starts a command of its own, which a replica does not run")
    _declare_environment(found)
    if proven:
        warm.trust_configuration()
    found.inject_config()
    server_context.service_type = "entry_service"
    server_context.service_name = found.name
    server_context.service_routes = [join_paths(found.path_prefix, api.route) for api in found.apis.values()]
    if bento:
        server_context.bento_name, server_context.bento_version = Path(bento).parts[-2:]
    else:
        server_context.bento_name, server_context.bento_version = found.name, "not available"
    return found


def _imported(target: str, folder: str, bento: str | None) -> Any:
    """BentoML's own loading; its exceptions as one sentence, with the cause kept for the log."""
    os.chdir(folder)
    try:
        if bento and not _is_plain(Path(bento)):
            return load_service(bento, standalone_load=True)
        if bento:
            _use_models(Path(bento))
        sys.path.insert(0, folder)
        # What `import_service` calls, which opens the model store before, for a millisecond.
        return _do_import(target, os.path.realpath(folder))
    except (ImportServiceError, BentoMLException) as error:
        raise Unservable(str(error)) from error
    except (AttributeError, TypeError) as error:
        # BentoML writes into what it found before it looks what it is: a class without the decorator, for one.
        module, _, name = target.partition(":")
        found = getattr(sys.modules.get(module), name, None)
        if found is None or isinstance(found, Service):
            raise
        raise Unservable(_no_service(target, found)) from error


def _no_service(target: str, found: Any) -> str:
    kind = "a class without @bentoml.service" if isinstance(found, type) else f"of type {type(found).__name__}"
    return f"{target} is {kind}, not a BentoML service"


def _is_plain(bento: Path) -> bool:
    """Whether importing the target is all that loading this bento takes; in doubt not.

    BentoML's loading reads the whole manifest, milliseconds for the arguments, model aliases and pinned revisions that
    few bentos have. A look at the text tells.
    """
    manifest = (bento / "bento.yaml").read_text()
    known = "\nargs: {}\n" in manifest and "alias:" not in manifest and "registry:" not in manifest
    return known


def _use_models(bento: Path) -> None:
    """A bento that has models of its own looks for them nowhere else, as BentoML has it."""
    if any((bento / "models").glob("*/*/model.yaml")):
        from bentoml._internal.models import ModelStore

        BentoMLContainer.model_store.set(ModelStore(bento / "models"))


def _declare_environment(service: Any) -> None:
    """Sets the defaults of the variables that the service, and each inside of it, declares. Raises Unservable."""
    services = service.all_services(exclude_urls=True).values()
    declared = [env for each in services for env in each.envs if env.stage != "build"]
    missing = [env.name for env in declared if env.name not in os.environ and not env.value]
    if missing:
        raise Unservable(f"the environment variables {', '.join(missing)} are required and not set")
    for env in declared:
        os.environ.setdefault(env.name, env.value)


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


def compile_sources(folder: str) -> None:
    """Once a revision: no later start compiles the service, also where Python is told to write no bytecode."""
    with contextlib.suppress(OSError):
        compileall.compile_dir(folder, quiet=2)


def finish_sessions() -> None:
    """Has the sessions packed that were opened in a hurry and that no call has run yet."""
    onnx = sys.modules.get("torpor.onnx")
    if onnx is not None:
        onnx.finish_hurried()


def hold_sessions() -> None:
    """In a template: no session starts a thread until `release_sessions`."""
    importlib.import_module("torpor.onnx").hold()


def release_sessions() -> None:
    """In a template's fork."""
    importlib.import_module("torpor.onnx").release()


def rehearse_sessions() -> None:
    """In a template's spare."""
    importlib.import_module("torpor.onnx").rehearse()


def open_task_store(service: Any) -> None:
    """Makes the table of the service's tasks where it is not there yet; BentoML's command makes it anew each time."""
    if service.needs_task_db():
        Sqlite3Store.init_db(BentoMLContainer.result_store_file.get())


def last_lines(path: Path, lines: int = 20) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
