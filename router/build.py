"""The router's parts put together, in one place."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

from router.config import Config, loopback
from router.core.catalog import Catalog
from router.core.effects import Note
from router.core.split import endpoint_of
from router.launch.cards import Cards
from router.launch.container.api import ContainerApi
from router.launch.container.images import Images
from router.launch.container.launcher import ContainerLauncher
from router.launch.container.platform import Platform
from router.launch.launchers import Launchers
from router.launch.logs import Logs
from router.launch.machine import SHARE, memory, memory_total
from router.launch.process import ProcessLauncher
from router.launch.rundir import RunFolder
from router.packages import Packages
from router.pushed import pushed_of
from router.router import Router
from router.shell.certificates import Certificates
from router.shell.deployments import Deployments
from router.shell.deploys import Deploys
from router.shell.door import Door
from router.shell.engine import Engine
from router.shell.listeners import Listeners
from router.shell.meters import Meters
from router.shell.plan import Plan
from router.shell.secrets import Secrets
from router.shell.shadow import Shadows
from router.shell.tokens import Tokens
from router.store import Store
from router.store.faults import Faults
from router.store.seal import Seal
from router.store.secrets import SecretRows

log = logging.getLogger("torpor.router")

PASSING = frozenset(("starting", "tried", "ended", "kept", "dropped"))  # transitions for the log, not for the history


def build(config: Config) -> Router:
    """Opens the store and puts the parts together; nothing runs yet."""
    certificates = certificates_of(config)
    store = Store.at(config.data)
    catalog = Catalog(config.domain)
    logs = Logs(config.data / "logs")
    room = config.memory or int(SHARE * memory_total())
    launcher, images = launchers_of(config, logs, room)
    pushed = pushed_of(config, store)
    meters = Meters()
    listeners = Listeners(config.host, certificates.context if certificates else None)

    async def plan(endpoint: str, revision: int) -> Plan:
        return await deploys.plan(endpoint, revision)

    cards = Cards()
    cards.look()
    note, held = noted(meters, store), cards.measure()
    engine = Engine(catalog, launcher, replica_id, time.monotonic, note, plan, room, cards=held)
    secrets = Secrets(SecretRows(store), Seal(config.data / "secret.key"), time.time, catalog.using)
    forget = forgetting(config, logs, meters, engine, listeners)
    packages = Packages.of(config, pushed, images, cards)
    deploys = Deploys(engine, catalog, store, packages, listeners, forget, memory, secrets)
    secrets.changed = deploys.refresh
    ports = config.ports_from if config.domain is None else None
    deployments = Deployments(deploys, engine, Faults(store), config.host, ports)
    listeners.let_go = deployments.let_go
    shadows = Shadows(engine, store.note)
    return Router(
        config,
        store,
        catalog,
        launcher,
        engine,
        pushed,
        deploys,
        deployments,
        shadows,
        listeners,
        logs,
        meters,
        door_of(config, engine, catalog, store),
        secrets,
        certificates,
        cards,
        images,
    )


def forgetting(
    config: Config, logs: Logs, meters: Meters, engine: Engine, listeners: Listeners
) -> Callable[[str], None]:
    """What removes all that a line has left: on the disk, and in what is counted."""

    def forget(line: str) -> None:
        logs.remove(line)
        meters.forget(line)
        engine.rates.forget(line)
        if listeners.proxy is not None:
            listeners.proxy.forget(line)
        shutil.rmtree(config.data / "endpoints" / line, ignore_errors=True)

    return forget


def door_of(config: Config, engine: Engine, catalog: Catalog, store: Store) -> Door:
    required, never = config.auth == "on" or not loopback(config.host), config.auth == "off"
    return Door(engine, catalog, Tokens(store, time.time), required=required, never=never, opens=config.opens())


def launchers_of(config: Config, logs: Logs, room: int) -> tuple[Launchers, Images]:
    """`room`: bytes that a container may take whose endpoint says nothing."""
    run = RunFolder(config.data / "run")
    api = ContainerApi(config.engine)
    platform = Platform(config.data, api)
    containers = ContainerLauncher(config.data, logs, run, api, platform, model_home(), room)
    launchers = Launchers(ProcessLauncher(config.data, logs, run=run), containers)
    return launchers, Images(api, platform.id(), config.build_network, config.data / "spool")


def noted(meters: Meters, store: Store) -> Callable[[Note], None]:
    """What happens to replicas is counted, logged, and, but for what passes, an endpoint's history."""

    def note(effect: Note) -> None:
        meters.noted(effect)
        told = {"endpoint": effect.endpoint, "event": effect.kind, "replica": effect.replica, "seconds": effect.seconds}
        log.info("endpoint %s: %s", effect.endpoint, effect.text.partition("\n")[0], extra=told)
        if effect.kind not in PASSING:
            store.note(endpoint_of(effect.endpoint), effect.kind, effect.text)

    return note


def model_home() -> Path:
    """BentoML's folder, in which the router's own models are."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    return Path(BentoMLContainer.bentoml_home.get())


def certificates_of(config: Config) -> Certificates | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Certificates(config.tls_cert, config.tls_key)


def replica_id(endpoint: str, revision: int) -> str:
    return f"{endpoint}-{revision}-{token_hex(4)}"
